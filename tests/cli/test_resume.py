"""`litlab resume`: refusals, the record of changes, runs that are extended, studies and single jobs of them."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.composed_jobs import begin, search_of
from support.runs import TINY, Command, call_litlab, compose_config, is_own, train_here

from litlab.cli import resume, status
from litlab.cli.resume import _quote, resume_study
from litlab.config.config_file import from_yaml, to_yaml
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.lock import directory_lock
from litlab.runs.metrics import read_metrics
from litlab.runs.provenance import describe_launch
from litlab.runs.result import Result, read_result, write_result
from litlab.runs.signature import sign
from litlab.runs.state import RunStatus
from litlab.sweep import multirun
from litlab.sweep.study import Study

NewRun = Callable[..., RunDirectory]


@pytest.fixture
def new_run(tmp_path: Path) -> NewRun:
    """Create a run of the user's own as `litlab train` does before the worker starts."""

    def make(*overrides: str, name: str = "run") -> RunDirectory:
        config = compose_config(*TINY, "schedule=constant", *overrides)
        launched = yaml.safe_dump(["data=shapes", "seed=3", "model.widths=[2,4]"])
        run = RunDirectory.create(tmp_path / name, to_yaml(config), {"overrides.yaml": launched})
        write_json(run.provenance, describe_launch(tmp_path, ["litlab", "train"]))
        sign(run)
        return run

    return make


def prepare(run: RunDirectory, *arguments: str) -> dict[str, Any] | None:
    """Do what the command does before the worker starts."""
    options = resume.parse_options([str(run.path), *arguments])
    return resume.prepare(run, options, ["litlab", "resume", str(run.path), *arguments])


def completed(run: RunDirectory, **values: Any) -> None:
    write_result(run, Result(RunStatus.COMPLETED, "", **{"epochs": 2, "steps": 20, **values}))


def resumptions(run: RunDirectory) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = run.read_json(run.provenance)["resumed"]
    return entries


def contents(run: RunDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file() and path.name != ".lock"}


def test_a_change_is_recorded_and_signed(new_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    config = prepare(run, "trainer.devices=2", "--allow", "torchmetrics", "checkpoint.every_minutes=3")
    assert config == from_yaml(run.config.read_text())
    assert (config["trainer"]["devices"], config["checkpoint"]["every_minutes"], config["threads"]) == (2, 3, 1)
    assert is_own(run)
    assert os.environ["LITLAB_ALLOW"] == "torchmetrics"
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["checkpoint.every_minutes: 10 -> 3", "trainer.devices: 1 -> 2"]
    assert lines[2].startswith("note: on other devices or threads the stream of samples stays the same")
    prepare(run)
    first, second = resumptions(run)
    assert first["changed"] == {"checkpoint.every_minutes": [10, 3], "trainer.devices": [1, 2]}
    assert first["command"][:4] == ["litlab", "resume", str(run.path), "trainer.devices=2"]
    assert (second["changed"], set(second)) == ({}, {"when", "command", "changed", "host", "code"})
    assert run.read_json(run.provenance)["project"] == str(tmp_path)


def test_an_unchanged_config_is_not_written(new_run: NewRun) -> None:
    run = new_run()
    files = [run.config, run.path / ".signature"]
    before = [file.stat().st_mtime_ns for file in files]
    assert prepare(run, "trainer.devices=1", "optimizer.lr=5e-2") == from_yaml(run.config.read_text())
    assert [file.stat().st_mtime_ns for file in files] == before


def test_a_reason_is_printed_without_control_characters(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    completed(run, stop_reason="stopped by \x1b[2JThis\x07\nsecond")
    assert prepare(run, "trainer.max_epochs=3") is not None
    assert "note: stopped by  [2JThis ; with more epochs" in capsys.readouterr().out


def test_a_complete_run_has_nothing_to_resume(new_run: NewRun, capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    completed(run, objective=0.25, test={"test/accuracy": 0.5})
    write_json(run.metric_table, {"val/accuracy": {"unit": "%", "mode": "max", "bounds": None}})
    before = contents(run)
    assert prepare(run, "trainer.devices=2") is None
    assert capsys.readouterr().out == (
        f"{run.path} is completed: val/accuracy 25.00 % after 20 steps; nothing to resume\n"
    )
    assert contents(run) == before
    unmeasured = new_run("objective=null", name="unmeasured")
    completed(unmeasured, test={"test/accuracy": 0.5})
    assert prepare(unmeasured) is None
    assert "is completed: test/accuracy 0.5000 after 20 steps" in capsys.readouterr().out
    assert prepare(run, "trainer.max_epochs=3") is not None
    assert not run.result.exists()


def test_fewer_epochs_than_have_begun_are_refused(new_run: NewRun) -> None:
    run = new_run("trainer.max_epochs=9")
    run.metrics.write_text("epoch,step,metric,value\n0,10,val/loss,1.0\n3,31,train/loss,1.0\n7,80,test/loss,1.0\n")
    with pytest.raises(UserError, match="9 -> 3 is less than the 4 epochs that the run has begun already"):
        prepare(run, "trainer.max_epochs=3")
    run.metrics.write_text("damaged")
    completed(run, epochs=5)
    with pytest.raises(UserError, match="9 -> 4 is less than the 5 epochs that the run has begun already"):
        prepare(run, "trainer.max_epochs=4")


def test_another_experiment_is_refused_with_its_command(new_run: NewRun) -> None:
    run = new_run("seed=3")
    before = contents(run)
    with pytest.raises(UserError) as refused:
        prepare(run, "optimizer.lr=0.1", "++seed=4", "threads=1")
    assert str(refused.value).splitlines() == [
        "seed: 3 -> 4 would make it another experiment",
        "optimizer.lr: 0.05 -> 0.1 would make it another experiment",
        "start a new run: litlab train data=shapes 'model.widths=[2,4]' optimizer.lr=0.1 ++seed=4 threads=1",
    ]
    assert contents(run) == before
    (run.path / ".signature").unlink()
    with pytest.raises(UserError, match=r"start a new run: litlab train \.\.\. seed=4"):
        prepare(run, "seed=4")


def test_a_foreign_logger_is_checked_before_anything_is_written(new_run: NewRun, tmp_path: Path) -> None:
    (tmp_path / "resume_test_logger.py").write_text("class Remote:\n    def __init__(self, *, address): ...\n")
    run = new_run()
    before = contents(run)
    with pytest.raises(UserError, match=r"logger\.mine: resume_test_logger\.Remote needs address"):
        prepare(run, "+logger.mine._target_=resume_test_logger.Remote")
    assert contents(run) == before
    (run.path / ".signature").unlink()
    with pytest.raises(UserError, match=r"logger\.mine\._target_: 'os\.system'"):
        prepare(run, "+logger.mine._target_=os.system")


def test_a_run_in_use_is_refused(new_run: NewRun) -> None:
    run = new_run()
    before = contents(run)
    with directory_lock(run.path), pytest.raises(UserError, match=f"is in use by process {os.getpid()}"):
        resume.main([str(run.path), "trainer.devices=2"])
    assert contents(run) == before


def test_the_exit_code_of_a_run_in_use(new_run: NewRun, litlab: Command) -> None:
    run = new_run()
    with directory_lock(run.path):
        assert litlab("resume", str(run.path)).returncode == 75


def test_a_directory_that_cannot_be_used_is_named(new_run: NewRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        resume.main([str(tmp_path)])
    run = new_run()
    (run.path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock: Is a directory; a run is continued in its own directory"):
        resume.main([str(run.path)])


def test_untrusted_files_raise_only_user_errors(new_run: NewRun) -> None:
    run = new_run()
    (run.path / ".signature").unlink()
    for content in (5, [], {"status": "completed", "epochs": "many", "steps": None, "test": 3, "objective": {}}):
        run.result.write_text(json.dumps(content))
        prepare(run, "trainer.max_epochs=3")
    run.result.unlink()
    for content in ([], {"resumed": 5}):
        run.provenance.write_text(json.dumps(content))
        prepare(run)
        assert len(resumptions(run)) == 1
    (run.path / ".hydra" / "overrides.yaml").write_text("{{")
    with pytest.raises(UserError, match="another experiment"):
        prepare(run, "seed=9")


def test_a_directory_of_several_runs(new_run: NewRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "conf").mkdir()
    shutil.copy(new_run(name="0000").config, tmp_path / "conf" / "config.yaml")
    runs = [RunDirectory(tmp_path / "0000"), new_run(name="0001"), new_run(name="more/0002 b"), new_run(name="0003")]
    completed(runs[0])
    write_result(runs[1], Result(RunStatus.INTERRUPTED, "", error="stopped by SIGTERM, saved at step 3\nand more"))
    write_result(runs[3], Result(RunStatus.FAILED, "", error="out of memory"))
    with pytest.raises(UserError) as refused:
        resume.main([str(tmp_path)])
    assert str(refused.value).splitlines() == [
        f"{tmp_path} holds 4 runs, 3 of them not completed; resume them one by one:",
        "  0001: interrupted: stopped by SIGTERM, saved at step 3",
        "  0003: failed: out of memory",
        "  more/0002 b: no result yet: it is running, or was killed",
        f"litlab resume {tmp_path}/0001",
    ]
    for run in runs[1:]:
        completed(run)
    resume.main([str(tmp_path)])
    assert capsys.readouterr().out == f"{tmp_path} holds 4 runs, all completed; nothing to resume\n"


def test_overrides_and_options_may_be_mixed() -> None:
    options = resume.parse_options(["DIR", "--allow", "timm", "a=1", "--allow", "mine", "~b"])
    assert (options.run, options.overrides, options.allow) == ("DIR", ["a=1", "~b"], ["timm", "mine"])


def test_an_extended_run_equals_a_longer_one(tmp_path: Path) -> None:
    short = train_here(tmp_path / "short", *TINY, "schedule=constant", "trainer.max_epochs=1")
    write_json(short.provenance, {"project": str(tmp_path)})
    sign(short)
    done = call_litlab(tmp_path, "resume", str(short.path), "trainer.max_epochs=2", "checkpoint.every_steps=7")
    assert done.stdout.startswith("checkpoint.every_steps: 1000 -> 7\ntrainer.max_epochs: 1 -> 2\n")
    assert done.stderr == ""
    whole = train_here(tmp_path / "whole", *TINY, "schedule=constant")
    results = [run.read_json(run.result) for run in (short, whole)]
    for key in ("status", "identity", "objective", "weights", "epochs", "steps", "best", "last", "test"):
        assert results[0][key] == results[1][key], key
    rows = [read_metrics(run.metrics) for run in (short, whole)]
    kept = [[row for row in metrics if not row.metric.startswith("throughput/")] for metrics in rows]
    assert kept[0] == kept[1]
    assert is_own(short)
    (entry,) = resumptions(short)
    assert entry["changed"] == {"checkpoint.every_steps": [1000, 7], "trainer.max_epochs": [1, 2]}
    objective = results[0]["objective"]
    assert call_litlab(tmp_path, "resume", str(short.path)).stdout == (
        f"{short.path} is completed: val/accuracy {100 * objective:.2f} % after 20 steps; nothing to resume\n"
    )


def test_an_untrusted_run_that_has_not_begun(tmp_path: Path, tiny_run: RunDirectory) -> None:
    run = RunDirectory.create(tmp_path / "run", to_yaml(compose_config(*TINY)), {})
    done = call_litlab(tmp_path, "resume", str(run.path), "logger=null")
    assert done.returncode == 0, done.stderr
    assert run.read_json(run.result)["weights"] == tiny_run.read_json(tiny_run.result)["weights"]
    assert list(run.path.glob("events*")) == []
    assert not is_own(run)


def test_a_grid_is_resumed_with_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = begin(tmp_path / "s", [0, 1, 2])
    write_result(jobs[2].run, Result(RunStatus.COMPLETED, "", objective=0.5))
    before = jobs[2].run.config.read_bytes()
    done = call_litlab(tmp_path, "resume", "s", "checkpoint.every_minutes=3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "checkpoint.every_minutes: 10 -> 3"
    assert [read_result(job.run)["status"] for job in jobs] == ["completed"] * 3
    assert [job.run.read_config()["checkpoint"]["every_minutes"] for job in jobs] == [3, 3, 10]
    assert jobs[2].run.config.read_bytes() == before
    assert all(is_own(job.run) for job in jobs)
    (entry,) = resumptions(jobs[0].run)
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


def test_a_refused_change_of_a_study_changes_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multirun, "WORKER_GRACE_SECONDS", 0.3)  # for a worker that may be saving
    jobs = begin(tmp_path / "s", [0, 1], schedule={"_target_": "litlab.optim.schedules.constant"})
    jobs[1].run.metrics.write_text("epoch,step,metric,value\n4,10,val/loss,1.0\n")
    before = [job.run.config.read_bytes() for job in jobs]
    with pytest.raises(UserError, match=r"(?s)0001_seed-1: .*is less than the 5 epochs.*no job of the study"):
        resume_study(tmp_path / "s", ["trainer.max_epochs=4"], ["litlab", "resume"])
    with pytest.raises(UserError, match=r"(?s)0000_seed-0: optimizer\.lr: .* another experiment"):
        resume_study(tmp_path / "s", ["optimizer.lr=3"], ["litlab", "resume"])
    with directory_lock(jobs[1].run.path), pytest.raises(UserError, match="0001_seed-1 is in use by process"):
        resume_study(tmp_path / "s", ["trainer.max_epochs=7"], ["litlab", "resume"])
    assert [job.run.config.read_bytes() for job in jobs] == before


def test_an_untrusted_study_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (job,) = begin(tmp_path / "s", [0])
    with pytest.raises(UserError, match="--allow is for untrusted runs"):
        resume.main([str(tmp_path / "s"), "--allow", "timm"])
    (job.run.path / ".signature").unlink()
    with pytest.raises(UserError, match="0000_seed-0 is untrusted: it is not signed"):
        resume_study(tmp_path / "s", ["trainer.devices=2"], ["litlab", "resume"])
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(UserError, match=r"study\.yaml is not signed by you"):
        resume.main([str(tmp_path / "s")])


def test_a_job_without_config_is_refused(tmp_path: Path) -> None:
    (job,) = begin(tmp_path / "s", [0])
    job.run.config.unlink()
    with pytest.raises(UserError, match=r"is missing; create it again by .*: litlab train -m data=shapes seed=0$"):
        resume.main([str(tmp_path / "s")])


def test_a_search_is_resumed_by_its_command_in_its_folder(tmp_path: Path) -> None:
    project, study = tmp_path / "project", Study.load_own(tmp_path / "it's a (search)")
    project.mkdir()
    plan = replace(search_of(project), arguments=["--cfg", "hydra", "--package", "hydra.sweep", "data=shapes"])
    with study.lock():
        study.write_plan(plan)
    with pytest.raises(UserError, match=r"is a search.*litlab train --cfg hydra"):
        resume.main([str(study.path), "trainer.devices=2"])
    done = call_litlab(tmp_path, "resume", study.path.name)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout)["dir"] == str(study.path), "the directory is set"
    project.rmdir()
    with pytest.raises(UserError, match="project: No such file or directory; the study was started in that folder"):
        resume.main([str(study.path)])


@pytest.mark.parametrize("name", ["a", "a b", "it's", "back\\slash", "a,b", "a=b(c)", "x\\'", "end\\"])
def test_directories_are_quoted_in_hydras_grammar(name: str) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    (parsed,) = OverridesParser.create().parse_overrides([f"hydra.sweep.dir={_quote(Path('/home') / name)}"])
    assert parsed.value() == f"/home/{name}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["hydra/launcher=pool"], "expected hydra/launcher=slurm or ray"),
        (["hydra.launcher.jobs=2"], "expected hydra/launcher=slurm or ray"),
        (["hydra/launcher=slurn"], "hydra/launcher=slurn"),
        (["hydra/launcher=slurm", "hydra.launcher.partion=gpu"], "hydra.launcher.partion"),
        (["hydra/launcher=slurm", "hydra.launcher.cpus=0"], "hydra.launcher.cpus"),
        (["hydra/launcher=slurm"], "no sbatch and no squeue"),
    ],
)
def test_a_queue_that_cannot_take_the_run(
    new_run: NewRun, overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run = new_run()
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(UserError) as raised:
        resume.main([str(run.path), *overrides])
    assert message in str(raised.value)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
