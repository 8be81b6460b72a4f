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
from support.search_jobs import DEFAULTS, FEW, LR, NAMES, WIDTH, Machine, best_at, run_search

from litlab.config.search_space import Dimension, Numbers, Space
from litlab.sweep.search.sampler import DistinctSampler, Point, suggest, to_point, to_values
from litlab.sweep.search.settings import make_sampler, read_settings

ALL = [
    ("tpe", {}), ("tpe", {"multivariate": True}), ("tpe", {"multivariate": True, "group": True}),
    ("cmaes", {}), ("random", {}), ("quasi_random", {}), ("quasi_random", {"qmc_type": "halton", "scramble": False}),
]  # fmt: skip
MOMENTUM = Dimension("momentum", "momentum", Numbers(0.5, 0.99, None, False), "", ("model.name", "a"))


def settings(**values: Any) -> Any:
    return read_settings(DEFAULTS | values)


def searched(
    sampler: BaseSampler, space: Space, num_trials: int, function: Callable[[dict[str, str]], float]
) -> optuna.Study:
    """Run trials in memory, two at a time."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    waiting: list[tuple[optuna.Trial, float]] = []
    for _ in range(num_trials):
        trial = study.ask()
        point = suggest(trial, space)
        if isinstance(sampler, DistinctSampler):
            sampler.seen.add(frozenset(point.items()))
        waiting.append((trial, function(point)))
        if len(waiting) == 2:
            study.tell(*waiting.pop(0))
    return study


def distinct(name: str, options: dict[str, Any], space: Space, seed: int = 0) -> DistinctSampler:
    return DistinctSampler(make_sampler(settings(sampler=name, sampler_options=options, seed=seed), 0), space, seed)


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
    study = searched(distinct(name, options, space), space, 20, lambda point: float(point["optimizer.lr"]))
    points = points_of(study, space)
    assert len(set(points)) == 20
    assert {("model.depth" in values, values["model.name"] == "a") for values in map(dict, points)} == {
        (True, True), (False, False),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [ALL[0], ALL[2], ("cmaes", {})])
def test_a_sampler_learns_as_well_as_optunas_own(name: str, options: dict[str, Any]) -> None:
    space = Space((LR, WIDTH), ())
    ours, plain, chance = [], [], []
    for seed in range(2):
        inner = make_sampler(settings(sampler=name, sampler_options=options, seed=seed), 0)
        plain.append(late_mean(searched(inner, space, 40, valley)))
        ours.append(late_mean(searched(distinct(name, options, space, seed), space, 40, valley)))
        chance.append(late_mean(searched(distinct("random", {}, space, seed), space, 40, valley)))
    assert mean(ours) < 2 * mean(plain) + 0.02
    assert mean(ours) < 0.5 * mean(chance)


def late_mean(study: optuna.Study) -> float:
    """Return the mean value of the trials that know something, the second half."""
    return mean(trial.value for trial in study.get_trials()[20:] if trial.value is not None)


def test_a_quasi_random_sequence_continues_after_a_restart(tmp_path: Path) -> None:
    several = ("optimizer.lr", "model.width")
    whole = run_search(tmp_path / "whole", Machine(best_at(0.03)), LR, WIDTH, trials=4, sampler="quasi_random")
    run_search(tmp_path / "parts", Machine(best_at(0.03)), LR, WIDTH, trials=2, sampler="quasi_random")
    parts = run_search(tmp_path / "parts", Machine(best_at(0.03)), LR, WIDTH, trials=4, sampler="quasi_random")
    values = [[[trial.params[key] for key in several] for trial in s.trials.trials] for s in (whole, parts)]
    assert values[0] == values[1]


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_the_other_pruners_prune(pruner: str, tmp_path: Path) -> None:
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, trials=8, pruner=pruner, sampler="random")
    found = [trial.state.name for trial in source.trials.trials]
    assert found.count("PRUNED") >= 1
    assert found.count("PRUNED") + found.count("COMPLETE") == 8


def test_restarts_sample_from_other_seeds() -> None:
    space = Space((LR,), ())
    first, second = (
        searched(
            DistinctSampler(make_sampler(settings(sampler="random"), known), space, 0), space, 5, lambda point: 0.0
        )
        for known in (0, 5)
    )
    assert not set(points_of(first, space)) & set(points_of(second, space))


def test_conversion_between_points_and_values() -> None:
    space = Space((NAMES, LR, WIDTH, MOMENTUM), ())
    point = {"model.name": "a", "optimizer.lr": "0.001", "model.width": "24", "momentum": "0.75"}
    values = to_values(space, point)
    assert values == {"model.name": "a", "optimizer.lr": 0.001, "model.width": 24, "momentum": 0.75}
    assert to_point(space, values) == frozenset(point.items())


def test_warnings_of_optuna_are_not_shown(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_search(tmp_path / "s", Machine(best_at(0.03)), FEW, WIDTH, trials=3, sampler_options={"multivariate": True})
        run_search(tmp_path / "c", Machine(best_at(0.03)), LR, WIDTH, NAMES, trials=3, sampler="cmaes")
