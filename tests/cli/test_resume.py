"""`litlab resume`: what it refuses, and what it writes before it starts a worker."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.runs import TINY, compose_config

from litlab.cli import main as cli
from litlab.cli import resume
from litlab.config import resume_record as amending
from litlab.config.config_file import from_yaml, to_yaml
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.lock import directory_lock
from litlab.runs.provenance import describe_launch
from litlab.runs.result import Result, write_result
from litlab.runs.signature import is_own, sign
from litlab.runs.state import RunStatus


@pytest.fixture(autouse=True)
def _environment_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.fixture
def new_run(tmp_path: Path) -> Callable[..., RunDirectory]:
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
    """All that the command does before the worker starts."""
    options = resume.parse_options([str(run.path), *arguments])
    return resume.prepare(run, options, ["litlab", "resume", str(run.path), *arguments])


def completed(run: RunDirectory, **values: Any) -> None:
    write_result(run, Result(RunStatus.COMPLETED, "", **{"epochs": 2, "steps": 20, **values}))


def resumptions(run: RunDirectory) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run.read_json(run.provenance)["resumed"]
    return found


def contents(run: RunDirectory) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file() and path.name != ".lock"}


def test_a_change_is_written_down_and_signed(
    new_run: Callable[..., RunDirectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    config = prepare(run, "trainer.devices=2", "--allow", "torchmetrics", "checkpoint.every_minutes=3")
    assert config == from_yaml(run.config.read_text())
    assert (config["trainer"]["devices"], config["checkpoint"]["every_minutes"], config["threads"]) == (2, 3, 1)
    assert is_own(run)
    assert os.environ["LITLAB_ALLOW"] == "torchmetrics"
    said = capsys.readouterr().out.splitlines()
    assert said[:2] == ["checkpoint.every_minutes: 10 -> 3", "trainer.devices: 1 -> 2"]
    assert said[2].startswith("note: on other devices or threads the stream of samples stays the same")
    prepare(run)
    first, second = resumptions(run)
    assert first["changed"] == {"checkpoint.every_minutes": [10, 3], "trainer.devices": [1, 2]}
    assert first["command"][:4] == ["litlab", "resume", str(run.path), "trainer.devices=2"]
    assert (second["changed"], set(second)) == ({}, {"when", "command", "changed", "host", "code"})
    assert run.read_json(run.provenance)["project"] == str(tmp_path)


def test_without_a_change_the_config_is_left_alone(new_run: Callable[..., RunDirectory]) -> None:
    run = new_run()
    before = run.config.stat().st_mtime_ns, (run.path / ".signature").stat().st_mtime_ns
    assert prepare(run, "trainer.devices=1", "optimizer.lr=5e-2") == from_yaml(run.config.read_text())
    assert (run.config.stat().st_mtime_ns, (run.path / ".signature").stat().st_mtime_ns) == before


def test_a_complete_run_has_nothing_to_resume(
    new_run: Callable[..., RunDirectory], capsys: pytest.CaptureFixture[str]
) -> None:
    run = new_run()
    completed(run, objective=0.25, test={"test/accuracy": 0.5})
    before = contents(run)
    assert prepare(run, "trainer.devices=2") is None
    assert (
        capsys.readouterr().out == f"{run.path} is completed: val/accuracy 0.2500 after 20 steps; nothing to resume\n"
    )
    assert contents(run) == before
    unmeasured = new_run("objective=null", name="unmeasured")
    completed(unmeasured, test={"test/accuracy": 0.5})
    assert prepare(unmeasured) is None
    assert "is completed: test/accuracy 0.5000 after 20 steps" in capsys.readouterr().out
    assert prepare(run, "trainer.max_epochs=3") is not None
    assert not run.result.exists()


def test_no_fewer_epochs_than_were_begun(new_run: Callable[..., RunDirectory]) -> None:
    run = new_run("trainer.max_epochs=9")
    run.metrics.write_text("epoch,step,metric,value\n0,10,val/loss,1.0\n3,31,train/loss,1.0\n7,80,test/loss,1.0\n")
    with pytest.raises(UserError, match="9 -> 3 is less than the 4 epochs that the run has begun already"):
        prepare(run, "trainer.max_epochs=3")
    run.metrics.write_text("damaged")
    completed(run, epochs=5)
    with pytest.raises(UserError, match="9 -> 4 is less than the 5 epochs that the run has begun already"):
        prepare(run, "trainer.max_epochs=4")


def test_another_experiment_is_refused_with_the_command_for_it(new_run: Callable[..., RunDirectory]) -> None:
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


@pytest.mark.parametrize("cut_off", ["write_json", "write_text"])
def test_cut_off_while_it_writes_the_same_command_completes_it(
    cut_off: str, new_run: Callable[..., RunDirectory], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = new_run()
    completed(run)
    with monkeypatch.context() as patched:
        patched.setattr(amending, cut_off, interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare(run, "trainer.max_epochs=3")
    assert FinishedRun.open(run.path).config["trainer"]["max_epochs"] == 2
    assert is_own(run)
    config = prepare(run, "trainer.max_epochs=3")
    assert config is not None
    assert config["trainer"]["max_epochs"] == 3
    assert resumptions(run)[-1]["changed"] == {"trainer.max_epochs": [2, 3]}


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


def test_a_foreign_logger_is_looked_at_before_anything_is_written(
    new_run: Callable[..., RunDirectory], tmp_path: Path
) -> None:
    (tmp_path / "resume_test_logger.py").write_text("class Remote:\n    def __init__(self, *, address): ...\n")
    run = new_run()
    before = contents(run)
    with pytest.raises(UserError, match=r"logger\.mine: resume_test_logger\.Remote needs address"):
        prepare(run, "+logger.mine._target_=resume_test_logger.Remote")
    assert contents(run) == before
    (run.path / ".signature").unlink()
    with pytest.raises(UserError, match=r"logger\.mine\._target_: 'os\.system'"):
        prepare(run, "+logger.mine._target_=os.system")


def test_code_that_changed_is_said(new_run: Callable[..., RunDirectory], capsys: pytest.CaptureFixture[str]) -> None:
    run = new_run()
    write_json(run.provenance, run.read_json(run.provenance) | {"code": {"commit": "of then"}})
    prepare(run)
    assert capsys.readouterr().out == (
        "note: the project's code has changed since the run started; the run continues with the present code\n"
    )


def test_a_run_in_use_is_left_alone(new_run: Callable[..., RunDirectory]) -> None:
    run = new_run()
    before = contents(run)
    with directory_lock(run.path), pytest.raises(UserError, match=f"is in use by process {os.getpid()}"):
        resume.main([str(run.path), "trainer.devices=2"])
    assert contents(run) == before


def test_a_directory_that_cannot_be_used_is_named(new_run: Callable[..., RunDirectory], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no config\.yaml"):
        resume.main([str(tmp_path)])
    run = new_run()
    (run.path / ".lock").mkdir()
    with pytest.raises(UserError, match=r"\.lock: Is a directory; a run is continued in its own directory"):
        resume.main([str(run.path)])


def test_what_others_wrote_raises_nothing_but_our_errors(new_run: Callable[..., RunDirectory]) -> None:
    run = new_run()
    (run.path / ".signature").unlink()
    for hostile in (5, [], {"status": "completed", "epochs": "many", "steps": None, "test": 3, "objective": {}}):
        run.result.write_text(json.dumps(hostile))
        prepare(run, "trainer.max_epochs=3")
    run.result.unlink()
    for hostile in ([], {"resumed": 5}):
        run.provenance.write_text(json.dumps(hostile))
        prepare(run)
        assert len(resumptions(run)) == 1
    (run.path / ".hydra" / "overrides.yaml").write_text("{{")
    with pytest.raises(UserError, match="another experiment"):
        prepare(run, "seed=9")


def test_a_directory_of_several_runs(
    new_run: Callable[..., RunDirectory], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
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


def test_the_command_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    options = resume.parse_options(["DIR", "--allow", "timm", "a=1", "--allow", "mine", "~b"])
    assert (options.run, options.overrides, options.allow) == ("DIR", ["a=1", "~b"], ["timm", "mine"])
    monkeypatch.setattr(sys, "argv", ["litlab", "resume", "--help"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    assert "litlab resume DIR trainer.max_epochs=40" in capsys.readouterr().out
