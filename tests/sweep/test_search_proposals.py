"""Tests of the source of the jobs of a search: optimum, pruning, resume, errors, kills at chosen moments."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState
from support.killed_search import MOMENTS
from support.search_jobs import (
    EPOCHS,
    FEW,
    LR,
    NAMES,
    WIDTH,
    Composer,
    SimulatedBackend,
    complete_jobs,
    open_search,
    point_of,
    run_search,
    search_of,
    states,
)

from hydra_plugins.litlab_search import _report
from litlab.config.search_space import Choices
from litlab.errors import RunFailed, UserError
from litlab.process.controller import RunStopped
from litlab.runs.metrics import MetricsWriter, read_metrics
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome
from litlab.sweep.search.report import report_trials
from litlab.sweep.search.spec import make_search_spec
from litlab.sweep.study import Study

TESTS = Path(__file__).parents[1]
TRIALS = 8
CALLS = {"proposed, not created": 2, "reported": 4, "ended, not recorded": 2}


def points(path: Path) -> list[dict[str, str]]:
    return [point_of(run.read_config()) for _, run in Study.load(path).jobs()]


def assert_validations_are_reported(path: Path, trials: Sequence[FrozenTrial]) -> None:
    for (_, run), trial in zip(Study.load(path).jobs(), trials, strict=True):
        rows = read_metrics(run.metrics)
        assert trial.intermediate_values == {step: row.value for step, row in enumerate(rows, 1)}
        if trial.state == TrialState.COMPLETE:
            assert len(rows) == EPOCHS
            assert trial.values == [rows[-1].value]


@pytest.mark.integrations
def test_a_search_finds_the_optimum_and_saves_time_by_pruning(tmp_path: Path) -> None:
    backend = SimulatedBackend()
    source = run_search(tmp_path / "s", LR, backend=backend, trials=30, pruner="median")
    best = source.trials.best_trial
    assert best.params["optimizer.lr"] == pytest.approx(0.03, rel=0.1)
    assert best.user_attrs["directory"] == f"{best.number:04d}"
    assert states(source).count("PRUNED") >= 5
    assert states(source).count("PRUNED") + states(source).count("COMPLETE") == 30
    assert backend.num_validations < 0.9 * 30 * EPOCHS
    report = "\n".join(report_trials(source))
    spared = 30 * EPOCHS - backend.num_validations
    assert "best by val/accuracy (max)" in report
    assert f"{spared} of 150 validations not run, about {spared} s of training saved" in report  # a second each
    assert_validations_are_reported(tmp_path / "s", source.trials.trials)


def test_more_trials_continue_a_search(tmp_path: Path) -> None:
    run_search(tmp_path / "s", LR, WIDTH, trials=4, sampler="random")
    source = run_search(tmp_path / "s", LR, WIDTH, trials=7, sampler="random")
    assert states(source) == ["COMPLETE"] * 7
    assert len({str(point) for point in points(tmp_path / "s")}) == 7


@pytest.mark.parametrize(("sampler", "num_before"), [("tpe", 0), ("random", 3)])
def test_a_search_ends_when_every_point_has_its_trial(sampler: str, num_before: int, tmp_path: Path) -> None:
    if num_before:
        run_search(tmp_path / "s", FEW, NAMES, trials=num_before, sampler=sampler)
    source = run_search(tmp_path / "s", FEW, NAMES, trials=20, sampler=sampler)
    assert states(source) == ["COMPLETE"] * 6
    assert len({str(point) for point in points(tmp_path / "s")}) == 6
    assert source.is_out_of_points
    assert "every point of the space has its trial now: 6 of the 20 asked for" in report_trials(source)


def test_several_objectives(tmp_path: Path) -> None:
    wanted = [{"metric": "val/accuracy", "mode": "max"}, {"metric": "parameters", "mode": "min"}]
    source = run_search(tmp_path / "s", LR, WIDTH, trials=6, objectives=wanted)
    assert states(source) == ["COMPLETE"] * 6
    assert all(len(trial.values) == 2 for trial in source.trials.trials)
    assert f"than one of these {len(source.trials.best_trials)}" in "\n".join(report_trials(source))
    with pytest.raises(UserError, match=r"are val/accuracy \(max\), parameters \(min\), not val/accuracy"):
        run_search(tmp_path / "s", LR, WIDTH, trials=8)


def test_a_point_that_can_not_be_a_job_counts_as_a_failed_trial(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    composer = Composer(study, refuses=lambda point: composer.num_calls % 2 == 0)
    source = complete_jobs(study, search_of(study, LR, compose=composer, trials=6))
    assert states(source) == ["COMPLETE", "FAIL"] * 3
    assert source.trials.trials[1].user_attrs["error"] == "optimizer.lr: out of range"
    assert [record.number for record in study.records] == [0, 2, 4]
    assert "  trial 1: optimizer.lr: out of range" in report_trials(source)


def test_a_search_whose_jobs_diverge_says_that_no_trial_has_a_value(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    with study.lock():
        source = open_search(study, search_of(study, LR, trials=3))
        while not source.is_exhausted():
            if (job := source.next_job(lambda config: True)) is not None:
                source.job_ended(job, Outcome(RunStatus.DIVERGED, "NaN", (), {"status": "diverged"}, 1.0))
    assert states(source) == ["FAIL"] * 3
    assert report_trials(source) == ["", "no trial has a value of val/accuracy"]


def test_if_the_first_points_can_not_be_jobs_the_search_stops(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, NAMES, compose=Composer(study, refuses=lambda point: True))
    with pytest.raises(UserError, match="out of range"):
        complete_jobs(study, search)
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    source = run_search(tmp_path / "s", LR, NAMES, trials=7, sampler="random")
    assert states(source) == ["FAIL"] * 5 + ["COMPLETE"] * 2
    others = replace(NAMES, domain=Choices(("d", "e")))
    assert states(run_search(tmp_path / "t", LR, others, trials=2)) == ["COMPLETE"] * 2


def test_a_search_is_refused_if_none_of_a_few_points_can_be_a_job(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR)
    composer, lowest = Composer(study), 0.5

    def compose(overrides: list[str], number: int) -> Any:
        if float(overrides[0].partition("=")[2]) < lowest:
            raise UserError(f"{overrides[0]}: out of range")
        return composer(overrides, number)

    again = (search.name, search.settings, search.space, compose, {})
    assert point_of(make_search_spec(*again).typical_config) == {"optimizer.lr": "1.0"}
    lowest = 2.0
    with pytest.raises(UserError, match=r"=0\.01: out of range\n\(in the middle of the space: .*; points tried: 5\)"):
        make_search_spec(*again)
    everywhere = Composer(study, refuses=lambda point: True)
    with pytest.raises(UserError, match="points tried: 2"):
        make_search_spec(search.name, search.settings, search.space, everywhere, {})


def test_a_search_is_refused_if_no_job_can_have_one_of_its_configs(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, replace(NAMES, key="model", name="model"))
    last = search.space.config_choices()[-1][1]
    composer = Composer(study)

    def compose(overrides: list[str], number: int) -> Any:
        if f"model={last}" in overrides:
            raise UserError("model.width: unknown key")
        return composer(overrides, number)

    with pytest.raises(UserError, match=rf"^model\.width: unknown key\n\(in the middle of the space: .*model={last}"):
        make_search_spec(search.name, search.settings, search.space, compose, {})


def test_a_metric_that_no_job_reports_stops_the_search(tmp_path: Path) -> None:
    other = SimulatedBackend(metric="val/iou")
    with pytest.raises(UserError, match=r"objective val/accuracy was not reported in validation; reported: val/iou"):
        run_search(tmp_path / "s", LR, backend=other, trials=10)
    assert len(Study.load(tmp_path / "s").records) == 2, "those that ran at the same time"
    message = "objective.metric=val/accuracy: was not logged in validation; logged: val/iou"
    with pytest.raises(UserError, match="logged: val/iou"):
        run_search(tmp_path / "t", LR, backend=SimulatedBackend(fails=lambda point: message), trials=10)


def test_a_failed_job_is_a_failed_trial_and_the_others_continue(tmp_path: Path) -> None:
    backend = SimulatedBackend(fails=lambda point: "no memory" if point["model.name"] == "b" else None)
    source = run_search(tmp_path / "s", FEW, NAMES, backend=backend, trials=6)
    assert sorted(states(source)) == ["COMPLETE"] * 4 + ["FAIL"] * 2
    assert {trial.user_attrs.get("error") for trial in source.trials.trials} == {None, "no memory"}


def test_a_job_that_others_stop_is_restarted_once(tmp_path: Path) -> None:
    source = run_search(tmp_path / "s", LR, backend=SimulatedBackend(stops={0: 1, 1: 2}), trials=3)
    assert states(source) == ["COMPLETE", "RUNNING", "COMPLETE"]
    assert [source.outcomes[number].status for number in range(3)] == ["completed", "interrupted", "completed"]
    with pytest.raises(RunFailed):
        _report(source, None)
    again = run_search(tmp_path / "s", LR, trials=3)
    assert states(again) == ["COMPLETE"] * 3
    recorded = [run.read_json(run.provenance).get("resumed", []) for _, run in Study.load(tmp_path / "s").jobs()]
    assert [len(entry) for entry in recorded] == [0, 1, 0], "by a command; within one it is the same one"


def test_resume_is_suggested_only_if_jobs_are_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = SimulatedBackend(fails=lambda point: "no memory")
    source = run_search(tmp_path / "s", LR, backend=backend, trials=1)
    with pytest.raises(RunFailed):
        _report(source, None)
    _report(run_search(tmp_path / "s", LR, backend=backend, trials=1), None)
    output = capsys.readouterr().out
    assert "1 job: 1 failed" in output
    assert "no job was started" in output
    assert "litlab resume" not in output
    with pytest.raises(RunStopped):
        _report(source, 15)
    assert "litlab resume" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "state"),
    [("completed", "COMPLETE"), ("pruned", "PRUNED"), ("failed", "FAIL"), ("interrupted", "RUNNING"),
     ("lost", "RUNNING")],
)  # fmt: skip
def test_the_state_of_trials_left_running_is_read_from_the_runs(tmp_path: Path, status: str, state: str) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, trials=1)
    with study.lock():
        job = open_search(study, search).next_job(lambda config: True)
        assert job is not None
        write_result(job.run, Result(status, "", best={"val/accuracy": 0.5}, error="so"))  # type: ignore[arg-type]
        source = open_search(study, search)
        assert states(source) == [state]
        assert source.is_exhausted() == (state != "RUNNING")
        again = source.next_job(lambda config: True)
        assert (again is not None and again.number == 0) == (state == "RUNNING")


def test_a_validation_is_reported_once_however_often_the_run_is_resumed(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, trials=1, pruner="median")
    with study.lock():
        source = open_search(study, search)
        job = source.next_job(lambda config: True)
        assert job is not None
        validate(job, 1, 2, 3)
        assert source.jobs_to_prune([job]) == []
        text = job.run.metrics.read_text()
        job.run.metrics.write_text("".join(text.splitlines(keepends=True)[:4]))  # back to the first checkpoint
        assert source.jobs_to_prune([job]) == []
        validate(job, 2, 3, 4)
        assert source.jobs_to_prune([job]) == []
        after_restart = open_search(study, search)
        assert after_restart.jobs_to_prune([job]) == []
        validate(job, 5)
        after_restart.job_ended(job, Outcome(RunStatus.COMPLETED, "", (), {"best": {"val/accuracy": 0.5}}, 1.0))
    assert after_restart.error is None
    (trial,) = after_restart.trials.trials
    assert trial.intermediate_values == {step: step / 10 for step in range(1, 6)}


def validate(job: Job, *epochs: int) -> None:
    writer = MetricsWriter(job.run.metrics)
    for epoch in epochs:
        writer.append(epoch - 1, 10 * epoch, {"val/loss": 7.0, "val/accuracy": epoch / 10, "train/loss": 3.0})
    writer.close()


def test_a_search_whose_trials_are_gone_is_not_continued(tmp_path: Path) -> None:
    run_search(tmp_path / "s", LR, trials=2)
    (tmp_path / "s" / "search.db").unlink()
    with pytest.raises(UserError, match="don't have job 0"):
        run_search(tmp_path / "s", LR, trials=3)


def test_choices_that_have_changed_are_another_space(tmp_path: Path) -> None:
    run_search(tmp_path / "s", NAMES, FEW, trials=1)
    more = replace(NAMES, domain=Choices(("a", "b", "c", "d")))
    with pytest.raises(UserError, match=r"a different search space:\n  model.name"):
        run_search(tmp_path / "s", more, FEW, trials=3)
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, more, FEW, trials=3)
    with pytest.raises(UserError, match="can't be read or written: CategoricalDistribution does not support"):
        complete_jobs(study, search)


def test_a_job_to_be_continued_whose_config_is_damaged(tmp_path: Path) -> None:
    run_search(tmp_path / "s", LR, backend=SimulatedBackend(stops={0: 9}), trials=1)
    (tmp_path / "s" / "0000" / "config.yaml").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"0000/config\.yaml is damaged"):
        run_search(tmp_path / "s", LR, trials=1)


def search(path: Path, *moments: str) -> list[dict[str, Any]]:
    """Return how each of the processes ended, and the states of the trials then."""
    command = [sys.executable, "-m", "support.killed_search", str(path), str(TRIALS), *moments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=TESTS)
    assert "Traceback" not in done.stderr, done.stderr
    lines = [line.removeprefix("ended ") for line in done.stdout.splitlines() if line.startswith("ended ")]
    return [json.loads(line) for line in lines]


def trials_of(path: Path) -> list[FrozenTrial]:
    return optuna.load_study(study_name="s", storage=f"sqlite:///{path / 'search.db'}").get_trials()


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run a search that is killed at each moment in turn, and then completed."""
    path = tmp_path_factory.mktemp("killed") / "study"
    *killed, last = search(path, *(f"{moment}={CALLS.get(moment, 1)}" for moment in MOMENTS), "")
    assert [end["code"] for end in killed] == [-signal.SIGKILL] * len(MOMENTS), killed
    for end in killed:
        assert sum(end["states"].values()) < TRIALS, end
        assert "RUNNING" in end["states"] or end["moment"].startswith("recorded"), end
    assert last["code"] == 0
    return path


@pytest.mark.integrations
def test_the_number_of_trials_is_exact_and_none_is_running(killed: Path) -> None:
    trials = trials_of(killed)
    assert len(trials) == TRIALS
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert sum(trial.state == TrialState.COMPLETE for trial in trials) >= 4


@pytest.mark.integrations
def test_each_trial_has_its_job_and_no_point_comes_twice(killed: Path) -> None:
    trials = trials_of(killed)
    jobs = Study.load(killed).jobs()
    assert [record.number for record, _ in jobs] == [trial.number for trial in trials]
    points = [point_of(run.read_config()) for _, run in jobs]
    assert points == [{key: repr(value) for key, value in trial.params.items()} for trial in trials]
    assert len({tuple(point.items()) for point in points}) == TRIALS
    assert {path.name for path in killed.iterdir() if path.name[0].isdigit()} == {job.directory for job, _ in jobs}
    assert_validations_are_reported(killed, trials)


@pytest.mark.integrations
def test_the_command_of_a_search_that_has_ended_does_nothing(killed: Path) -> None:
    before = [(trial.params, trial.state, trial.datetime_complete) for trial in trials_of(killed)]
    (again,) = search(killed, "")
    assert again["code"] == 0
    assert [(trial.params, trial.state, trial.datetime_complete) for trial in trials_of(killed)] == before
