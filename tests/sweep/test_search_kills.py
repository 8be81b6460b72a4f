"""A search whose controller is killed with -9, at chosen moments: the same command brings it to its exact end."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from support.killed_search import MOMENTS
from support.search_jobs import EPOCHS, point_of

from litlab.runs.metrics import read_metrics
from litlab.sweep.study import Study

TESTS = Path(__file__).parents[1]
TRIALS = 8
CALLS = {"asked, not admitted": 2, "reported": 4, "ended, not told": 2}


def search(path: Path, *moments: str) -> list[dict[str, Any]]:
    """How each of the processes ended, and the states of the trials then."""
    command = [sys.executable, "-m", "support.killed_search", str(path), str(TRIALS), *moments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=TESTS)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line.removeprefix("ended ") for line in done.stdout.splitlines() if line.startswith("ended ")]
    return [json.loads(line) for line in lines]


def trials_of(path: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{path / 'search.db'}").get_trials()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a search that was killed at each moment in turn, and then left to end."""
    path = tmp_path_factory.mktemp("killed") / "study"
    *killed, last = search(path, *(f"{moment}={CALLS.get(moment, 1)}" for moment in MOMENTS), "")
    assert [each["code"] for each in killed] == [-signal.SIGKILL] * len(MOMENTS), killed
    for each in killed:
        assert sum(each["states"].values()) < TRIALS, each
        assert "RUNNING" in each["states"] or each["moment"].startswith("told"), each
    assert last["code"] == 0
    return path


def test_the_number_of_trials_is_exact_and_none_is_running(killed: Path) -> None:
    trials = trials_of(killed)
    assert len(trials) == TRIALS
    assert {each.state for each in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert sum(each.state == TrialState.COMPLETE for each in trials) >= 4


def test_each_trial_has_its_job_and_no_point_comes_twice(killed: Path) -> None:
    trials = trials_of(killed)
    jobs = Study.load(killed).jobs()
    assert [record.number for record, _ in jobs] == [each.number for each in trials]
    points = [point_of(run.read_config()) for _, run in jobs]
    assert points == [{key: repr(value) for key, value in each.params.items()} for each in trials]
    assert len({tuple(each.items()) for each in points}) == TRIALS
    assert {each.name for each in killed.iterdir() if each.name[0].isdigit()} == {each.directory for each, _ in jobs}


def test_the_trials_have_what_the_runs_measured(killed: Path) -> None:
    for (_, run), trial in zip(Study.load(killed).jobs(), trials_of(killed), strict=True):
        rows = read_metrics(run.metrics)
        assert trial.intermediate_values == {place: row.value for place, row in enumerate(rows, 1)}
        if trial.state == TrialState.COMPLETE:
            assert len(rows) == EPOCHS
            assert trial.values == [rows[-1].value]


def test_the_command_of_a_search_that_has_ended_does_nothing(killed: Path) -> None:
    before = [(each.params, each.state, each.datetime_complete) for each in trials_of(killed)]
    (again,) = search(killed, "")
    assert again["code"] == 0
    assert [(each.params, each.state, each.datetime_complete) for each in trials_of(killed)] == before
