"""A search as a source of jobs: it finds the optimum, prunes, ends, and says what it can't do."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.search_jobs import (
    EPOCHS,
    FEW,
    LR,
    NAMES,
    WIDTH,
    Composer,
    Machine,
    best_at,
    drive,
    point_of,
    run_search,
    search_of,
    search_source,
    states,
)  # fmt: skip

from litlab.config.search_space import Choices, Dimension, Numbers
from litlab.errors import UserError
from litlab.runs.metrics import read_metrics
from litlab.sweep.search.report import describe_search, report_trials
from litlab.sweep.search.source import SearchSource
from litlab.sweep.search.spec import make_search_spec
from litlab.sweep.study import Study


def points(path: Path) -> list[dict[str, str]]:
    return [point_of(run.read_config()) for _, run in Study.load(path).jobs()]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchSource, Machine, Path]:
    """A search of 30 trials with pruning, for the best learning rate, which is 0.03."""
    path, machine = tmp_path_factory.mktemp("search") / "lr", Machine(best_at(0.03))
    return run_search(path, machine, LR, trials=30, pruner="median"), machine, path


def test_the_optimum_is_found_within_ten_percent(found: tuple[SearchSource, Machine, Path]) -> None:
    best = found[0].trials.best_trial
    assert best.params["optimizer.lr"] == pytest.approx(0.03, rel=0.1)
    assert best.user_attrs["directory"] == f"{best.number:04d}"


def test_hopeless_jobs_are_pruned_which_saves_time(found: tuple[SearchSource, Machine, Path]) -> None:
    source, machine, path = found
    assert states(source).count("PRUNED") >= 5
    assert states(source).count("PRUNED") + states(source).count("COMPLETE") == 30
    assert machine.num_validations < 0.9 * 30 * EPOCHS
    search = search_of(Study.load_own(path), LR, trials=30, pruner="median")
    said = "\n".join(report_trials(search, Study.load(path), source.trials, is_out_of_points=False))
    spared = 30 * EPOCHS - machine.num_validations
    assert "best by val/accuracy (max)" in said
    assert f"{spared} of 150 validations not run, about {spared} s of training saved" in said  # a second each


def test_what_a_pruned_job_had_measured_is_known(found: tuple[SearchSource, Machine, Path]) -> None:
    source, _, path = found
    for (_, run), trial in zip(Study.load(path).jobs(), source.trials.trials, strict=True):
        rows = read_metrics(run.metrics)
        assert trial.intermediate_values == {place: row.value for place, row in enumerate(rows, 1)}


def test_more_trials_continue_a_search(tmp_path: Path) -> None:
    run_search(tmp_path / "s", Machine(best_at(0.03)), LR, WIDTH, trials=4, sampler="random")
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, WIDTH, trials=7, sampler="random")
    assert states(source) == ["COMPLETE"] * 7
    assert len({str(each) for each in points(tmp_path / "s")}) == 7


@pytest.mark.parametrize("sampler", ["tpe", "random", "quasi_random"])
def test_a_small_space_is_walked_through_without_repetition(tmp_path: Path, sampler: str) -> None:
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), FEW, NAMES, trials=20, sampler=sampler)
    assert states(source) == ["COMPLETE"] * 6
    assert len({str(each) for each in points(tmp_path / "s")}) == 6
    assert source.is_out_of_points
    said = report_trials(search_of(Study.load_own(tmp_path / "s"), FEW), Study.load(tmp_path / "s"), source.trials,
                    is_out_of_points=True)  # fmt: skip
    assert "every point of the space has its trial now: 6 of the 20 asked for" in said


def test_dimensions_on_a_condition(tmp_path: Path) -> None:
    depth = Dimension("model.depth", "model.depth", Numbers(1, 9, 1, False), "", ("model.name", "a"))
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, NAMES, depth, trials=8, sampler="random")
    assert states(source) == ["COMPLETE"] * 8
    assert {("model.depth" in each, each["model.name"] == "a") for each in points(tmp_path / "s")} == {
        (True, True), (False, False),
    }  # fmt: skip


def test_several_objectives(tmp_path: Path) -> None:
    wanted = [{"metric": "val/accuracy", "mode": "max"}, {"metric": "parameters", "mode": "min"}]
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, WIDTH, trials=6, objectives=wanted)
    assert states(source) == ["COMPLETE"] * 6
    assert all(len(each.values) == 2 for each in source.trials.trials)
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, WIDTH, objectives=wanted)
    said = "\n".join(report_trials(search, study, source.trials, is_out_of_points=False))
    assert f"than one of these {len(source.trials.best_trials)}" in said
    with pytest.raises(UserError, match=r"goes by val/accuracy \(max\), parameters \(min\), and not by val/accuracy"):
        run_search(tmp_path / "s", Machine(best_at(0.03)), LR, WIDTH, trials=8)


def test_a_point_that_can_not_be_a_job_counts_as_a_failed_trial(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    composer = Composer(study, refuses=lambda point: composer.num_calls % 2 == 0)
    search = search_of(study, LR, compose=composer, trials=6)
    source = drive(study, search_source(study, search))
    assert states(source) == ["COMPLETE", "FAIL"] * 3
    assert source.trials.trials[1].user_attrs["error"] == "optimizer.lr: out of range"
    assert [record.number for record in study.records] == [0, 2, 4]
    assert "  trial 1: optimizer.lr: out of range" in report_trials(
        search, study, source.trials, is_out_of_points=False
    )


def test_if_the_first_points_can_not_be_jobs_the_search_stops(tmp_path: Path) -> None:
    study = Study.load_own(tmp_path / "s")
    search = search_of(study, LR, NAMES, compose=Composer(study, refuses=lambda point: True))
    with pytest.raises(UserError, match="out of range"):
        drive(study, search_source(study, search))
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, NAMES, trials=7, sampler="random")
    assert states(source) == ["FAIL"] * 5 + ["COMPLETE"] * 2
    others = replace(NAMES, domain=Choices(("d", "e")))
    assert states(run_search(tmp_path / "t", Machine(best_at(0.03)), LR, others, trials=2)) == ["COMPLETE"] * 2


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


def test_a_metric_that_no_job_reports_stops_the_search(tmp_path: Path) -> None:
    machine = Machine(best_at(0.03))
    machine.metric = "val/iou"
    with pytest.raises(UserError, match=r"objective val/accuracy was not reported in validation; reported: val/iou"):
        run_search(tmp_path / "s", machine, LR, trials=10)
    assert len(Study.load(tmp_path / "s").records) == 2, "those that ran at the same time"


def test_a_worker_that_misses_the_metric_stops_the_search(tmp_path: Path) -> None:
    machine = Machine(best_at(0.03))
    machine.fails = lambda point: "objective.metric=val/accuracy: was not logged in validation; logged: val/iou"
    with pytest.raises(UserError, match="logged: val/iou"):
        run_search(tmp_path / "s", machine, LR, trials=10)


def test_a_failed_job_is_a_failed_trial_and_the_others_go_on(tmp_path: Path) -> None:
    machine = Machine(best_at(0.03))
    machine.fails = lambda point: "no memory" if point["model.name"] == "b" else None
    source = run_search(tmp_path / "s", machine, FEW, NAMES, trials=6)
    assert sorted(states(source)) == ["COMPLETE"] * 4 + ["FAIL"] * 2
    assert {each.user_attrs.get("error") for each in source.trials.trials} == {None, "no memory"}


def test_an_outline_says_what_would_be_searched(tmp_path: Path) -> None:
    said = "\n".join(
        describe_search(search_of(Study.load_own(tmp_path / "s"), LR, NAMES), Study.load_own(tmp_path / "s"))
    )
    assert "20 trials for val/accuracy (max)" in said
    assert "optimizer.lr  tag(log,interval(1e-4,1))" in said
    assert not (tmp_path / "s").exists()
