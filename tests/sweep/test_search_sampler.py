"""Tests of the sampling of distinct points with each of Optuna's samplers, and of the pruners."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from support.search_jobs import FEW, LR, NAMES, WIDTH, run_search, settings_of, states

from litlab.config.search_space import Dimension, Numbers, Space
from litlab.sweep.search.sampler import DistinctSampler, Point, suggest, to_point, to_values
from litlab.sweep.search.settings import make_sampler

ALL = [
    ("tpe", {}), ("tpe", {"multivariate": True}), ("tpe", {"multivariate": True, "group": True}),
    ("cmaes", {}), ("random", {}), ("quasi_random", {}), ("quasi_random", {"qmc_type": "halton", "scramble": False}),
]  # fmt: skip
MOMENTUM = Dimension("momentum", "momentum", Numbers(0.5, 0.99, None, False), "", ("model.name", "a"))


def run_trials(
    sampler: BaseSampler, space: Space, num_trials: int, function: Callable[[dict[str, str]], float]
) -> optuna.Study:
    """Run trials in memory, two at a time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    pending: list[tuple[optuna.Trial, float]] = []
    for _ in range(num_trials):
        trial = study.ask()
        point = suggest(trial, space)
        if isinstance(sampler, DistinctSampler):
            sampler.seen.add(frozenset(point.items()))
        pending.append((trial, function(point)))
        if len(pending) == 2:
            study.tell(*pending.pop(0))
    return study


def distinct(name: str, options: dict[str, Any], space: Space, seed: int = 0) -> DistinctSampler:
    return DistinctSampler(make_sampler(settings_of(sampler=name, sampler_options=options, seed=seed), 0), space, seed)


def valley(point: dict[str, str]) -> float:
    """Compute a function with its minimum at a learning rate of 0.03 and a width of 32."""
    return (math.log10(float(point["optimizer.lr"])) - math.log10(0.03)) ** 2 + (
        int(point["model.width"]) / 32 - 1
    ) ** 2


def points_of(study: optuna.Study, space: Space) -> list[Point]:
    return [to_point(space, trial.params) for trial in study.get_trials()]


@pytest.mark.parametrize(("name", "options"), ALL)
def test_no_sampler_repeats_a_point(name: str, options: dict[str, Any]) -> None:
    depth = Dimension("model.depth", "model.depth", Numbers(1, 3, 1, False), "", ("model.name", "a"))
    other = Dimension("optimizer.lr", "optimizer.lr", Numbers(1, 4, 1, False), "")
    space = Space((NAMES, other, depth), ())  # 4 points for each of b and c, 12 for a
    study = run_trials(distinct(name, options, space), space, 20, lambda point: float(point["optimizer.lr"]))
    points = points_of(study, space)
    assert len(set(points)) == 20
    assert {("model.depth" in values, values["model.name"] == "a") for values in map(dict, points)} == {
        (True, True), (False, False),
    }  # fmt: skip


@pytest.mark.integrations
@pytest.mark.parametrize(("name", "options"), [ALL[0], ALL[2], ("cmaes", {})])
def test_a_sampler_learns_as_well_as_optunas_own(name: str, options: dict[str, Any]) -> None:
    space = Space((LR, WIDTH), ())
    distinct_means, inner_means, random_means = [], [], []
    for seed in range(2):
        inner = make_sampler(settings_of(sampler=name, sampler_options=options, seed=seed), 0)
        inner_means.append(late_mean(run_trials(inner, space, 40, valley)))
        distinct_means.append(late_mean(run_trials(distinct(name, options, space, seed), space, 40, valley)))
        random_means.append(late_mean(run_trials(distinct("random", {}, space, seed), space, 40, valley)))
    assert mean(distinct_means) < 2 * mean(inner_means) + 0.02
    assert mean(distinct_means) < 0.5 * mean(random_means)


def late_mean(study: optuna.Study) -> float:
    """Return the mean value of the trials that know something, the second half."""
    return mean(trial.value for trial in study.get_trials()[20:] if trial.value is not None)


@pytest.mark.integrations
def test_a_quasi_random_sequence_continues_after_a_restart(tmp_path: Path) -> None:
    whole = run_search(tmp_path / "whole", LR, WIDTH, trials=4, sampler="quasi_random")
    run_search(tmp_path / "parts", LR, WIDTH, trials=2, sampler="quasi_random")
    parts = run_search(tmp_path / "parts", LR, WIDTH, trials=4, sampler="quasi_random")
    assert [trial.params for trial in parts.trials.trials] == [trial.params for trial in whole.trials.trials]


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_the_other_pruners_prune(pruner: str, tmp_path: Path) -> None:
    source = run_search(tmp_path / "s", LR, trials=8, pruner=pruner, sampler="random")
    assert states(source).count("PRUNED") >= 1
    assert states(source).count("PRUNED") + states(source).count("COMPLETE") == 8


def test_restarts_sample_from_other_seeds() -> None:
    space = Space((LR,), ())
    first, second = (make_sampler(settings_of(sampler="random"), num_trials) for num_trials in (0, 5))
    studies = [run_trials(DistinctSampler(inner, space, 0), space, 5, lambda point: 0.0) for inner in (first, second)]
    assert not set.intersection(*(set(points_of(study, space)) for study in studies))


def test_conversion_between_points_and_values() -> None:
    space = Space((NAMES, LR, WIDTH, MOMENTUM), ())
    point = {"model.name": "a", "optimizer.lr": "0.001", "model.width": "24", "momentum": "0.75"}
    values = to_values(space, point)
    assert values == {"model.name": "a", "optimizer.lr": 0.001, "model.width": 24, "momentum": 0.75}
    assert to_point(space, values) == frozenset(point.items())


def test_warnings_of_optuna_are_not_shown(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_search(tmp_path / "s", FEW, WIDTH, trials=3, sampler_options={"multivariate": True})
        run_search(tmp_path / "c", LR, WIDTH, NAMES, trials=3, sampler="cmaes")
