"""Sessions of runs, read back by the backend of TensorBoard's HParams page."""

import logging
from pathlib import Path
from typing import Any

import pytest
from support.hparams_page import Shown, sessions, sessions_of
from support.studies import make_run
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

from litlab.loggers import TensorBoard
from litlab.process.failure import record_failure
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result, read_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job, JobExit
from litlab.sweep.outcome import determine_outcome
from litlab.tensorboard import (
    LAST,
    PREFIX,
    SESSION_START,
    LoggedSummary,
    end_session,
    remove_session_end,
    scalar,
    start_session,
    write_events,
)

BEST = {"val/loss": 0.5, "val/accuracy": 0.75}


def new_run(path: Path, **values: Any) -> tuple[RunDirectory, dict[str, Any]]:
    """Make a job that sweeps the learning rate, as its controller leaves it to a worker."""
    run = make_run(path, {"optimizer.lr": 0.1} | values, 0.5, swept=["optimizer.lr"])
    run.result.unlink()
    return run, run.read_config()


def completed(**metrics: dict[str, float]) -> Result:
    return Result(RunStatus.COMPLETED, "", steps=20, **metrics)  # type: ignore[arg-type]


def test_a_finished_run_shows_what_result_json_says(tiny_run: RunDirectory) -> None:
    result = read_result(tiny_run)
    (shown,) = sessions(tiny_run.path.parent).values()
    assert (shown.status, shown.settings) == ("STATUS_SUCCESS", {"seed": 0})
    told = {tag.removeprefix("result/"): value for tag, value in shown.metrics.items() if tag.startswith("result/")}
    expected = {f"{which}/{name}": value for which in ("best", "last") for name, value in result[which].items()}
    assert told == expected | result["test"]


def test_a_run_appends_to_one_event_file(tiny_run: RunDirectory) -> None:
    first, _, last = sorted(path.name for path in tiny_run.path.glob("events.*"))
    assert first == SESSION_START
    assert last.startswith(LAST)


@pytest.mark.parametrize("status", [RunStatus.FAILED, RunStatus.REFUSED])
def test_a_run_that_failed_is_found_by_the_filter(status: Any, tmp_path: Path) -> None:
    for name in ("good", "bad"):
        run, config = new_run(tmp_path / name)
        start_session(run, config)
        end_session(run, config, completed(best=BEST))
    remove_session_end(run)
    record_failure(run, config, status, "so it is")
    assert sessions(tmp_path, ["STATUS_FAILURE"]) == {"bad": Shown("STATUS_FAILURE", {"optimizer.lr": 0.1}, {})}
    assert list(sessions(tmp_path, ["STATUS_SUCCESS"])) == ["good"]


@pytest.mark.parametrize("status", [RunStatus.INTERRUPTED, RunStatus.PRUNED])
def test_a_run_that_was_stopped_has_neither_failed_nor_succeeded(status: Any, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    record_failure(run, config, RunStatus.FAILED, "at first")
    run.result.unlink()
    record_failure(run, config, status, "and then")
    assert [each.status for each in sessions(tmp_path).values()] == ["STATUS_UNKNOWN"]


def test_a_run_that_failed_before_it_was_completed_has_not_failed(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    record_failure(run, config, RunStatus.FAILED, "at first")
    remove_session_end(run)
    start_session(run, config)
    assert [each.status for each in sessions(tmp_path).values()] == ["STATUS_UNKNOWN"]
    end_session(run, config, completed(best=BEST))
    (shown,) = sessions(tmp_path).values()
    assert (shown.status, len(shown.metrics)) == ("STATUS_SUCCESS", 2)


def test_who_watches_a_run_reads_all_of_it_before_its_end(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    watching = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    write_events(run.path / f"{PREFIX}1700000000.x.0", [LoggedSummary(scalar("val/loss", 1.0), 20, 1.7e9)])
    assert sessions_of(watching.Reload())["run"] == Shown("STATUS_UNKNOWN", {"optimizer.lr": 0.1}, {"val/loss": 1.0})
    end_session(run, config, completed(best=BEST))
    (shown,) = sessions_of(watching.Reload()).values()
    assert (shown.status, len(shown.metrics)) == ("STATUS_SUCCESS", 3)


def test_a_job_whose_process_was_killed_has_failed(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    outcome = determine_outcome(JobExit(Job(0, run, config), -9, 1.0))
    assert outcome.status == "killed"
    assert sessions(tmp_path, ["STATUS_FAILURE"])["run"].settings == {"optimizer.lr": 0.1}


def test_what_is_no_number_is_left_blank(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run")
    start_session(run, config)
    last = {"val/loss": float("nan"), "val/accuracy": float("inf"), "val/score": -1e300}
    end_session(run, config, completed(best=BEST, last=last))
    assert sorted(sessions(tmp_path)["run"].metrics) == ["result/best/val/accuracy", "result/best/val/loss"]


@pytest.mark.parametrize("nodes", [None, {}, {"tensorboard": None}, {"csv": {"_target_": "lightning.CSVLogger"}}])
def test_without_tensorboard_there_is_no_session(nodes: Any, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", logger=nodes)
    start_session(run, config)
    record_failure(run, config, RunStatus.FAILED, "so it is")
    assert not list(run.path.glob("events.*"))


def test_a_session_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, config = new_run(tmp_path / "run")
    (run.path / SESSION_START).mkdir()
    end = run.path / f"{LAST}.1.session"
    end.mkdir()
    with caplog.at_level(logging.WARNING, "litlab"):
        start_session(run, config)
        record_failure(run, config, RunStatus.FAILED, "so it is")
    assert read_result(run)["error"] == "so it is"
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        f"{run.path / SESSION_START} cannot be written: Is a directory",
        f"{end} cannot be written: Is a directory",
    ]
    assert not list(run.path.glob("*.tmp"))


def test_hyperparameters_of_a_users_own_make_no_second_session(tmp_path: Path) -> None:
    logger = TensorBoard(save_dir=str(tmp_path / "run"))
    logger.log_hyperparams({"width": 3}, {"score": 1.0}, 5)
    logger.close()
    tags = EventAccumulator(str(tmp_path / "run")).Reload().Tags()
    assert (tags["scalars"], tags["tensors"]) == (["score"], [])
