"""Event files and HParams sessions, read back by TensorBoard itself."""

import logging
import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from support.hparams_page import Shown, sessions, sessions_of
from support.studies import config_with, make_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.backend.event_processing.io_wrapper import IsTensorFlowEventsFile
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from litlab.loggers import TensorBoard
from litlab.process.failure import record_failure
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_atomic
from litlab.runs.redact import register_secrets
from litlab.runs.result import Result, read_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job, JobExit
from litlab.sweep.outcome import determine_outcome
from litlab.tensorboard_session import (
    LAST,
    PREFIX,
    SESSION_START,
    LoggedSummary,
    end_session,
    remove_session_end,
    scalars,
    session_hparams,
    start_session,
    write_events,
)

EVENTS = [LoggedSummary(scalars({"val/loss": value}), step, 1.5e9 + step) for step, value in ((10, 0.5), (20, 0.25))]
BEST = {"val/loss": 0.5, "val/accuracy": 0.75}
UNKNOWN = "STATUS_UNKNOWN"


def test_events_come_back_and_are_written_once(tmp_path: Path) -> None:
    file, other = tmp_path / f"{PREFIX}0.test", tmp_path / f"{PREFIX}1.test"
    write_events(file, EVENTS)
    first, *events = EventFileLoader(str(file)).Load()
    assert (first.file_version, first.wall_time) == ("brain.Event:2", 1.5e9 + 10)
    values = [(e.step, e.wall_time, v.tag, v.tensor.float_val[0]) for e in events for v in e.summary.value]
    assert values == [(10, 1.5e9 + 10, "val/loss", 0.5), (20, 1.5e9 + 20, "val/loss", 0.25)]
    assert list(tmp_path.iterdir()) == [file]
    os.utime(file, (1, 1))
    write_events(file, EVENTS)
    assert file.stat().st_mtime == 1
    write_events(other, EVENTS)
    assert other.read_bytes() == file.read_bytes()
    write_events(file, EVENTS[:1])
    assert file.read_bytes() != other.read_bytes()


def test_a_temporary_file_is_no_event_file(tmp_path: Path) -> None:
    names: list[str] = []
    write_atomic(tmp_path / f"{PREFIX}0", lambda file: names.extend(path.name for path in tmp_path.iterdir()))
    assert len(names) == 1
    assert not IsTensorFlowEventsFile(names[0])
    assert IsTensorFlowEventsFile(f"{PREFIX}0")


def test_neither_torch_nor_tensorflow_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; import litlab.process.failure; assert 'tensorboard' not in sys.modules\n"
        "from litlab.tensorboard_session import LoggedSummary, session_start_summary, write_events\n"
        "events = [LoggedSummary(session_start_summary({'lr': 0.1}, 0), 0, 0)]\n"
        f"write_events(Path({str(tmp_path)!r}) / 'events.out.tfevents.0', events)\n"
        "print([name for name in ('torch', 'tensorflow', 'lightning') if name in sys.modules])"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (process.stdout, process.stderr) == ("[]\n", "")


def new_run(path: Path, **values: Any) -> tuple[RunDirectory, dict[str, Any]]:
    """Make a job that sweeps the learning rate, as its controller leaves it to a worker."""
    run = make_run(path, {"optimizer.lr": 0.1} | values, 0.5, swept=["optimizer.lr", "model"])
    run.result.unlink()
    return run, run.read_config()


def completed(**metrics: dict[str, float]) -> Result:
    return Result(RunStatus.COMPLETED, "", steps=20, **metrics)  # type: ignore[arg-type]


def test_a_completed_run_shows_its_result(tiny_run: RunDirectory) -> None:
    """Its session is two files, around the one that the logger appends to."""
    first, _, last = sorted(path.name for path in tiny_run.path.glob("events.*"))
    assert (first, last.startswith(LAST)) == (SESSION_START, True)
    result = read_result(tiny_run)
    (session,) = sessions(tiny_run.path.parent).values()
    assert (session.status, session.settings) == ("STATUS_SUCCESS", {"seed": 0})
    final = {tag.removeprefix("result/"): value for tag, value in session.metrics.items() if tag.startswith("result/")}
    expected = {f"{which}/{name}": value for which in ("best", "last") for name, value in result[which].items()}
    assert final == expected | result["test"]


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.REFUSED])
def test_a_failed_run_is_found_by_the_filter(status: RunStatus, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        run, config = new_run(tmp_path / name)
        start_session(run, config)
        end_session(run, config, completed(best=BEST))
    remove_session_end(run)
    record_failure(run, config, status, "out of memory")
    assert sessions(tmp_path, ["STATUS_FAILURE"]) == {"bad": Shown("STATUS_FAILURE", {"optimizer.lr": 0.1}, {})}
    assert list(sessions(tmp_path, ["STATUS_SUCCESS"])) == ["good"]


@pytest.mark.parametrize("status", [RunStatus.INTERRUPTED, RunStatus.PRUNED])
def test_a_run_that_was_stopped_or_resumed_has_neither_failed_nor_succeeded(status: RunStatus, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    record_failure(run, config, RunStatus.FAILED, "at first")
    run.result.unlink()
    record_failure(run, config, status, "and then")
    assert [session.status for session in sessions(tmp_path).values()] == [UNKNOWN]
    end_session(run, config, Result(RunStatus.FAILED, ""))
    remove_session_end(run)
    start_session(run, config)
    assert [session.status for session in sessions(tmp_path).values()] == [UNKNOWN]
    end_session(run, config, completed(best=BEST))
    (session,) = sessions(tmp_path).values()
    assert (session.status, len(session.metrics)) == ("STATUS_SUCCESS", 2)


def test_values_are_read_before_the_end(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    reader = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    write_events(run.path / f"{PREFIX}1700000000.x.0", [LoggedSummary(scalars({"val/loss": 1.0}), 20, 1.7e9)])
    assert sessions_of(reader.Reload())["run"] == Shown(UNKNOWN, {"optimizer.lr": 0.1}, {"val/loss": 1.0})
    end_session(run, config, completed(best=BEST))
    (session,) = sessions_of(reader.Reload()).values()
    assert (session.status, len(session.metrics)) == ("STATUS_SUCCESS", 3)


def test_a_killed_job_has_failed(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    assert determine_outcome(JobExit(Job(0, run, config), -9, 1.0)).status is RunStatus.KILLED
    assert sessions(tmp_path, ["STATUS_FAILURE"])["run"].settings == {"optimizer.lr": 0.1}


def test_nonfinite_metrics_are_left_blank(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    last = {"val/loss": float("nan"), "val/accuracy": float("inf"), "val/score": -1e300}
    end_session(run, config, completed(best=BEST, last=last))
    assert sorted(sessions(tmp_path)["run"].metrics) == ["result/best/val/accuracy", "result/best/val/loss"]


@pytest.mark.parametrize("nodes", [None, {}, {"tensorboard": None}, {"csv": {"_target_": "lightning.CSVLogger"}}])
def test_without_the_logger_there_is_no_session(nodes: Any, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", logger=nodes)
    start_session(run, config)
    record_failure(run, config, RunStatus.FAILED, "out of memory")
    assert not list(run.path.glob("events.*"))


def test_a_session_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, config = new_run(tmp_path / "run")
    (run.path / SESSION_START).mkdir()
    end = run.path / f"{LAST}.1.session"
    end.mkdir()
    with caplog.at_level(logging.WARNING, "litlab"):
        start_session(run, config)
        record_failure(run, config, RunStatus.FAILED, "out of memory")
    assert read_result(run)["error"] == "out of memory"
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"{run.path / SESSION_START} cannot be written: Is a directory",
        f"{end} cannot be written: Is a directory",
    ]
    assert not list(run.path.glob("*.tmp"))


def test_hyperparameters_of_a_user_module_make_no_second_session(tmp_path: Path) -> None:
    logger = TensorBoard(save_dir=str(tmp_path / "run"))
    logger.log_hyperparams({"width": 3}, {"score": 1.0}, 5)
    logger.finalize("closed")
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()
    assert (tags["scalars"], tags["tensors"]) == (["score"], [])


def run_with(path: Path, *overrides: str) -> RunDirectory:
    return RunDirectory.create(path, "", {"overrides.yaml": "".join(f"- {override}\n" for override in overrides)})


def job_hparams(path: Path, values: dict[str, Any], *overrides: str) -> dict[str, Any]:
    """Return the hyperparameters of a job whose study sweeps the keys of the overrides."""
    config = config_with(values)
    config["study"] = {"name": "s", "swept": [override.partition("=")[0] for override in overrides]}
    return session_hparams(run_with(path, *overrides), config)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optimizer.lr", 0.1, 0.1),
        ("model.depth", 3, 3),
        ("data.flip", False, False),
        ("data.corruption", "fog", "fog"),
        ("model.widths", [4, 8], "[4,8]"),
        ("optimizer.lr", float("inf"), "Infinity"),
        ("seed", 10**400, str(10**400)),
        ("data.corruption", "\ud800", "?"),
        ("trainer.devices", 2, 2),
        ("data.since", date(2026, 1, 31), '"2026-01-31"'),
        ("data.corruption", "x" * 1000, "x" * 500),
    ],
)
def test_a_hyperparameter_keeps_its_type(key: str, value: Any, expected: Any, tmp_path: Path) -> None:
    hparams = job_hparams(tmp_path / "run", {key: value}, f"{key}=whatever")
    assert hparams == {key: expected}
    assert type(hparams[key]) is type(expected)


def test_a_group_shows_its_option(tmp_path: Path) -> None:
    overrides = ("model=cnn", "+experiment=cifar10", "data/augment@data.more=crop", "seed=3")
    hparams = job_hparams(tmp_path / "run", {}, *overrides)
    assert hparams == {"model": "cnn", "experiment": "cifar10", "data/augment@data.more": "crop", "seed": 0}


def test_null_and_secrets_are_left_out(tmp_path: Path) -> None:
    register_secrets(["hunter2hunter2"])
    values = {"trainer.gradient_clip_val": None, "data.token": "${oc.env:NAME}", "data.note": "a hunter2hunter2"}
    overrides = ("trainer.gradient_clip_val=null", "data.token=x", "data.note=x")
    assert job_hparams(tmp_path / "run", values, *overrides) == {"data.note": "a ***"}


def test_untrusted_values_are_left_out(tmp_path: Path) -> None:
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    config = config_with({"data.more": cyclic, "data.keys": [{(1, 2): 3}]})
    for swept in (["data.more", "data.keys", 3, None, ["x"]], "data.more", {"data.more": 1}, None):
        config["study"] = {"swept": swept}
        assert session_hparams(RunDirectory(tmp_path), config).keys() <= {"seed"}
    assert session_hparams(RunDirectory(tmp_path), {"study": "s", "seed": 1}) == {"seed": 1}


def test_a_single_run_shows_what_its_command_set(tmp_path: Path) -> None:
    overrides = ("optimizer.lr=0.3", "model=cnn", "trainer=cpu", "trainer.max_epochs=2", "trainer.devices=2", "name=x")
    overrides += ("~schedule", "data.root=/somewhere", "threads=1", "logger.tensorboard.flush=3", "hydra.run.dir=out")
    hparams = session_hparams(run_with(tmp_path / "run", *overrides), config_with({"optimizer.lr": 0.3, "seed": 7}))
    assert hparams == {"optimizer.lr": 0.3, "model": "cnn", "trainer.max_epochs": 2, "seed": 7}


@pytest.mark.parametrize("record", ["{", "3", "- 1\n- [a, b]\n- null\n", "[" * 1000])
def test_a_damaged_record_of_the_command_leaves_the_seed(record: str, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run", "", {"overrides.yaml": record})
    assert session_hparams(run, config_with({})) == {"seed": 0}
