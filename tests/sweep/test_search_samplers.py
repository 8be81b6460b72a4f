"""Optuna's samplers and pruners behind the settings of a search: none repeats a point, options are checked."""

import math
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from support.search_jobs import BASE, DEFAULTS, FEW, LR, NAMES, WIDTH, Machine, best_at, run_search

from litlab.config.schema import Objective
from litlab.config.search_space import Dimension, Numbers, Space
from litlab.errors import UserError
from litlab.sweep.search.objectives import make_objectives, num_validations
from litlab.sweep.search.sampler import DistinctSampler, Point, suggest, to_point, to_values
from litlab.sweep.search.settings import check_sampler, make_pruner, make_sampler, read_settings
from litlab.sweep.search.storage import check_url, open_trials

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
    """So many trials, two at a time, in memory."""
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
    """Lowest at a learning rate of 0.03 and a width of 32."""
    return (math.log10(float(point["optimizer.lr"])) - math.log10(0.03)) ** 2 + (
        int(point["model.width"]) / 32 - 1
    ) ** 2


def points_of(study: optuna.Study, space: Space) -> list[Point]:
    return [to_point(space, each.params) for each in study.get_trials()]


@pytest.mark.parametrize(("name", "options"), ALL)
def test_no_sampler_repeats_a_point(name: str, options: dict[str, Any]) -> None:
    depth = Dimension("model.depth", "model.depth", Numbers(1, 3, 1, False), "", ("model.name", "a"))
    other = Dimension("optimizer.lr", "optimizer.lr", Numbers(1, 4, 1, False), "")
    space = Space((NAMES, other, depth), ())  # 4 points for each of b and c, 12 for a
    study = searched(distinct(name, options, space), space, 20, lambda point: float(point["optimizer.lr"]))
    points = points_of(study, space)
    assert len(set(points)) == 20
    assert {("model.depth" in dict(each), dict(each)["model.name"] == "a") for each in points} == {
        (True, True), (False, False),
    }  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [ALL[0], ALL[2], ("cmaes", {})])
def test_a_sampler_learns_as_well_as_without_us(name: str, options: dict[str, Any]) -> None:
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
    """What the trials of the second half come to: those that know something."""
    return mean(each.value for each in study.get_trials()[20:] if each.value is not None)


def test_a_quasi_random_sequence_goes_on_after_a_restart(tmp_path: Path) -> None:
    several = ("optimizer.lr", "model.width")
    whole = run_search(tmp_path / "whole", Machine(best_at(0.03)), LR, WIDTH, trials=4, sampler="quasi_random")
    run_search(tmp_path / "parts", Machine(best_at(0.03)), LR, WIDTH, trials=2, sampler="quasi_random")
    parts = run_search(tmp_path / "parts", Machine(best_at(0.03)), LR, WIDTH, trials=4, sampler="quasi_random")
    values = [[[each.params[key] for key in several] for each in s.trials.trials] for s in (whole, parts)]
    assert values[0] == values[1]


@pytest.mark.parametrize("pruner", ["successive_halving", "hyperband"])
def test_the_other_pruners_prune(pruner: str, tmp_path: Path) -> None:
    source = run_search(tmp_path / "s", Machine(best_at(0.03)), LR, trials=8, pruner=pruner, sampler="random")
    found = [each.state.name for each in source.trials.trials]
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


def test_points_and_values_are_the_same_thing() -> None:
    space = Space((NAMES, LR, WIDTH, MOMENTUM), ())
    point = {"model.name": "a", "optimizer.lr": "0.001", "model.width": "24", "momentum": "0.75"}
    values = to_values(space, point)
    assert values == {"model.name": "a", "optimizer.lr": 0.001, "model.width": 24, "momentum": 0.75}
    assert to_point(space, values) == frozenset(point.items())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sampler": "bayes"}, "hydra.sweeper.sampler=bayes: expected 'tpe', 'cmaes', 'random' or 'quasi_random'"),
        ({"pruner": "mean"}, "hydra.sweeper.pruner=mean: expected 'median', 'successive_halving' or 'hyperband'"),
        ({"trials": 0}, "hydra.sweeper.trials=0: expected"),
        ({"sampler_options": {"n_startup": 3}}, "TPESampler has no such option.*known: .*n_startup_trials"),
        ({"sampler_options": {"n_startup_trials": "x"}}, "sampler_options.n_startup_trials=x: expected int"),
        ({"sampler_options": {"multivariate": 3}}, "multivariate=3: expected bool | null"),
        ({"sampler_options": {"seed": 3}}, "has no such option"),
        ({"pruner": "median", "pruner_options": {"warmup": 3}}, "MedianPruner has no such option; known: n_startup"),
        ({"pruner_options": {"n_startup_trials": 3}}, "there is no pruner to take them"),
        ({"objectives": [{"metric": "val/loss", "mode": "min"}]}, "hydra.sweeper.objectives=.*at least 2"),
        (
            {"pruner": "median", "objectives": [{"metric": m, "mode": "min"} for m in ("val/loss", "parameters")]},
            "can't be combined with several objectives; set it to null",
        ),
        (
            {"sampler": "cmaes", "objectives": [{"metric": m, "mode": "min"} for m in ("val/loss", "parameters")]},
            "knows one objective only",
        ),
        (
            {"objectives": [{"metric": m, "mode": "min"} for m in ("val/loss", "test/loss")]},
            "nothing is ever selected on the test split",
        ),
    ],
)
def test_settings_that_are_wrong_are_told(values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        settings(**values)


def test_what_optuna_itself_refuses_is_told() -> None:
    with pytest.raises(UserError, match="sampler_options: QMCSampler of Optuna says"):
        make_sampler(settings(sampler="quasi_random", sampler_options={"qmc_type": "niederreiter"}), 0)
    with pytest.raises(UserError, match="pruner_options: SuccessiveHalvingPruner of Optuna says"):
        make_pruner(settings(pruner="successive_halving", pruner_options={"reduction_factor": 0}), None)


def test_cmaes_needs_two_numbers() -> None:
    with pytest.raises(UserError, match="needs two or more dimensions of numbers, this space has 1"):
        check_sampler(settings(sampler="cmaes"), Space((LR, NAMES), ()))
    check_sampler(settings(sampler="cmaes"), Space((LR, WIDTH), ()))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objective": None}, "objective=null: a search needs to know what is better"),
        (
            {"data": {"_target_": "litlab.data.shapes.Shapes", "val_size": 0}},
            "data.val_size=0: without validation data there is no val/accuracy",
        ),
    ],
)
def test_runs_without_the_objective_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_objectives(BASE | changes, None)


def test_an_objective_that_no_run_has_is_refused() -> None:
    ours = BASE | {"task": {"_target_": "litlab.tasks.image_classifier.ImageClassifier"}}
    wanted = [Objective(metric="val/accuracy", mode="max"), Objective(metric="paramters", mode="min")]
    with pytest.raises(UserError, match="paramters is no value of a run; did you mean parameters; known: val/acc"):
        make_objectives(ours, wanted)


def test_values_of_the_objectives_come_from_the_result() -> None:
    wanted = [Objective(metric=each, mode="min") for each in ("val/loss", "parameters", "seconds.training")]
    result = {"best": {}, "last": {"val/loss": 0.5}, "parameters": 7, "seconds": {"training": 2.5}, "test": {}}
    assert [each.value(result) for each in make_objectives(BASE, wanted)] == [0.5, 7.0, 2.5]
    assert [each.value({"best": {"val/loss": None}}) for each in make_objectives(BASE, wanted)] == [None] * 3


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [({}, 5), ({"check_val_every_n_epoch": 2}, 2), ({"val_check_interval": 0.5}, 10), ({"max_epochs": -1}, None),
     ({"val_check_interval": 100}, None), ({"check_val_every_n_epoch": None}, None), ({"max_steps": 50}, None)],
)  # fmt: skip
def test_how_often_a_run_validates(trainer: dict[str, Any], expected: int | None) -> None:
    assert num_validations(BASE | {"trainer": BASE["trainer"] | trainer}) == expected


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://me:canary-word@127.0.0.1:1/search",
        "sqlite:///file:/nowhere/there/search.db?uri=true&password=canary-word",
        "nonsense://me:canary-word@there",
        "no url: canary-word",
    ],
)
def test_a_database_that_is_not_there_is_told_without_its_password(url: str) -> None:
    with pytest.raises(UserError, match=r"hydra.sweeper.storage: .* can't be read or written: .") as error:
        check_url(url)
    assert "canary-word" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("name", ["with space", "what?", "50%20", "{brace}", "#"])
def test_the_file_of_the_trials_is_in_the_directory_however_it_is_called(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    read = settings()
    open_trials(path, None, "s", make_objectives(BASE, None), make_sampler(read, 0), make_pruner(read, None))
    assert [each.name for each in path.iterdir()] == ["search.db"]


def test_warnings_of_optuna_are_not_the_users(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_search(tmp_path / "s", Machine(best_at(0.03)), FEW, WIDTH, trials=3, sampler_options={"multivariate": True})
        run_search(tmp_path / "c", Machine(best_at(0.03)), LR, WIDTH, NAMES, trials=3, sampler="cmaes")
