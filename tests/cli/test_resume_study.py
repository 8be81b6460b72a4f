"""`litlab resume` of a study, and of one job of it."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.composed_jobs import begin, search_of
from support.runs import call_litlab

from litlab.cli import resume, status
from litlab.cli.resume import _quote, resume_study
from litlab.errors import UserError
from litlab.runs.lock import directory_lock
from litlab.runs.result import Result, read_result, write_result
from litlab.runs.signature import is_own
from litlab.runs.state import RunStatus
from litlab.sweep import multirun
from litlab.sweep.study import Study


@pytest.fixture(autouse=True)
def _environment_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "path", [*sys.path])


def configs(path: Path) -> list[dict[str, Any]]:
    return [run.read_config() for _, run in Study.load_own(path).jobs()]


def test_a_grid_goes_on_with_what_is_changed_and_its_jobs_are_runs_like_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = begin(tmp_path / "s", [0, 1, 2])
    write_result(jobs[2].run, Result(RunStatus.COMPLETED, "", objective=0.5))
    before = jobs[2].run.config.read_bytes()
    done = call_litlab(tmp_path, "resume", "s", "checkpoint.every_minutes=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "checkpoint.every_minutes: 10 -> 3"
    assert [read_result(job.run)["status"] for job in jobs] == ["completed"] * 3
    assert [each["checkpoint"]["every_minutes"] for each in configs(tmp_path / "s")] == [3, 3, 10]
    assert jobs[2].run.config.read_bytes() == before
    assert all(is_own(job.run) for job in jobs)
    (entry,) = jobs[0].run.read_json(jobs[0].run.provenance)["resumed"]
    assert entry["changed"] == {"checkpoint.every_minutes": [10, 3]}
    assert entry["command"] == ["litlab", "resume", "s", "checkpoint.every_minutes=3"]

    monkeypatch.chdir(tmp_path)
    resume.main(["s"])
    assert capsys.readouterr().out == "s holds 3 jobs, all completed; nothing to resume\n"
    resume.main(["s/0000_seed-0"])
    assert "0000_seed-0 is completed: val/accuracy" in capsys.readouterr().out
    assert "\nIDENTICAL" in call_litlab(tmp_path, "rerun", "s/0000_seed-0").stdout
    assert len(list((tmp_path / "s").glob("*/config.yaml"))) == 4
    status.main(["s"])
    assert capsys.readouterr().out.splitlines()[0] == "s: 3 jobs: 3 completed"
    assert len(begin(tmp_path / "s", [0, 1, 2, 3])) == 4


def test_a_change_is_refused_before_any_job_is_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multirun, "WORKER_GRACE_SECONDS", 0.3)  # for a worker that may be saving
    jobs = begin(tmp_path / "s", [0, 1], schedule={"_target_": "litlab.optim.schedules.constant"})
    jobs[1].run.metrics.write_text("epoch,step,metric,value\n4,10,val/loss,1.0\n")
    before = [job.run.config.read_bytes() for job in jobs]
    with pytest.raises(UserError, match=r"(?s)0001_seed-1: .*less than what the run has begun.*no job of the study"):
        resume_study(tmp_path / "s", ["trainer.max_epochs=4"], ["litlab", "resume"])
    with pytest.raises(UserError, match=r"(?s)0000_seed-0: optimizer\.lr: .* another experiment"):
        resume_study(tmp_path / "s", ["optimizer.lr=3"], ["litlab", "resume"])
    with (
        directory_lock(jobs[1].run.path),
        pytest.raises(UserError, match="0001_seed-1 is in use by process"),
    ):
        resume_study(tmp_path / "s", ["trainer.max_epochs=7"], ["litlab", "resume"])
    assert [job.run.config.read_bytes() for job in jobs] == before


def test_only_ones_own_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = begin(tmp_path / "s", [0])
    with pytest.raises(UserError, match="--allow is for a run of somebody else's"):
        resume.main([str(tmp_path / "s"), "--allow", "timm"])
    (job.run.path / ".signature").unlink()
    with pytest.raises(UserError, match="0000_seed-0 is not known as yours: it is not signed"):
        resume_study(tmp_path / "s", ["trainer.devices=2"], ["litlab", "resume"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(UserError, match=r"study\.yaml is not signed by you"):
        resume.main([str(tmp_path / "s")])


def test_a_job_without_its_config(tmp_path: Path) -> None:
    (job,) = begin(tmp_path / "s", [0])
    job.run.config.unlink()
    with pytest.raises(UserError, match=r"is missing; .*anew: litlab train -m data=shapes seed=0$"):
        resume.main([str(tmp_path / "s")])


def test_a_search_is_its_command_once_more_in_its_folder(tmp_path: Path) -> None:
    project, study = tmp_path / "project", Study.load_own(tmp_path / "it's a (search)")
    project.mkdir()
    plan = replace(search_of(project), arguments=["--cfg", "hydra", "--package", "hydra.sweep", "data=shapes"])
    with study.lock():
        study.write_plan(plan)
    with pytest.raises(UserError, match=r"is a search.*litlab train --cfg hydra"):
        resume.main([str(study.path), "trainer.devices=2"])
    done = call_litlab(tmp_path, "resume", study.path.name)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["dir"] == str(study.path), "Hydra was told the directory"
    project.rmdir()
    with pytest.raises(UserError, match="project: No such file or directory; the search was started in that folder"):
        resume.main([str(study.path)])


@pytest.mark.parametrize("name", ["a", "a b", "it's", "back\\slash", "a,b", "a=b(c)", "x\\'", "end\\"])
def test_any_directory_can_be_said_in_hydras_grammar(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (parsed,) = OverridesParser.create().parse_overrides([f"hydra.sweep.dir={_quote(Path('/home') / name)}"])
    assert parsed.value() == f"/home/{name}"
