"""Tests of the settings and objectives of a search."""

from typing import Any

import pytest
from support.search_jobs import BASE, LR, NAMES, WIDTH, settings_of

from litlab.config.schema import Objective
from litlab.config.search_space import Space
from litlab.errors import UserError
from litlab.sweep.search.settings import (
    check_sampler,
    make_objectives,
    make_pruner,
    make_sampler,
    num_validations,
    objective_value,
)


@pytest.mark.parametrize(
    ("values", "message"),
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
            "supports one objective only",
        ),
        (
            {"objectives": [{"metric": m, "mode": "min"} for m in ("val/loss", "test/loss")]},
            "nothing is ever selected on the test split",
        ),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        settings_of(**values)


def test_options_that_optuna_refuses() -> None:
    with pytest.raises(UserError, match="sampler_options: QMCSampler of Optuna says"):
        make_sampler(settings_of(sampler="quasi_random", sampler_options={"qmc_type": "niederreiter"}), 0)
    with pytest.raises(UserError, match="pruner_options: SuccessiveHalvingPruner of Optuna says"):
        make_pruner(settings_of(pruner="successive_halving", pruner_options={"reduction_factor": 0}), None)


def test_cmaes_needs_two_numbers() -> None:
    with pytest.raises(UserError, match="needs two or more dimensions of numbers, this space has 1"):
        check_sampler(settings_of(sampler="cmaes"), Space((LR, NAMES), ()))
    check_sampler(settings_of(sampler="cmaes"), Space((LR, WIDTH), ()))


@pytest.mark.parametrize(
    ("changes", "metrics", "message"),
    [
        ({"objective": None}, None, "objective=null: a search needs to know what is better"),
        (
            {"data": {"_target_": "litlab.data.shapes.Shapes", "val_size": 0}},
            None,
            "data.val_size=0: without validation data there is no val/accuracy",
        ),
        (
            {"task": {"_target_": "litlab.tasks.image_classifier.ImageClassifier"}},
            ["val/accuracy", "paramters"],
            "paramters is not a value that runs report; did you mean parameters; known: val/acc",
        ),
    ],
)
def test_runs_without_the_objective_are_refused(
    changes: dict[str, Any], metrics: list[str] | None, message: str
) -> None:
    several = metrics and [Objective(metric=metric, mode="min") for metric in metrics]
    with pytest.raises(UserError, match=message):
        make_objectives(BASE | changes, several)


@pytest.mark.parametrize(
    "data",
    [
        {"_target_": "litlab.data.shapes.Shapes", "folds": 5, "fold": 0},
        {"_target_": "litlab.data.image_folder.ImageFolder", "folders": {"val": ["val"]}},
        {"_target_": "litlab.data.huggingface.HuggingFace", "splits": {"val": ["validation"]}},
        {"_target_": "litlab.data.torchvision.Torchvision", "name": "DTD"},
    ],
    ids=str,
)
def test_other_validation_data_take_the_place_of_val_size(data: dict[str, Any]) -> None:
    data = data | {"val_size": 0}
    assert [objective.metric for objective in make_objectives(BASE | {"data": data}, None)] == ["val/accuracy"]


def test_values_of_the_objectives() -> None:
    metrics = [Objective(metric=metric, mode="min") for metric in ("val/loss", "parameters", "seconds.training")]
    objectives = make_objectives(BASE, metrics)
    result = {"best": {}, "last": {"val/loss": 0.5}, "parameters": 7, "seconds": {"training": 2.5}, "test": {}}
    assert [objective_value(objective, result) for objective in objectives] == [0.5, 7.0, 2.5]
    assert [objective_value(objective, {"best": {"val/loss": None}}) for objective in objectives] == [None] * 3


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [({}, 5), ({"check_val_every_n_epoch": 2}, 2), ({"val_check_interval": 0.5}, 10), ({"max_epochs": -1}, None),
     ({"val_check_interval": 100}, None), ({"check_val_every_n_epoch": None}, None), ({"max_steps": 50}, None)],
)  # fmt: skip
def test_num_validations(trainer: dict[str, Any], expected: int | None) -> None:
    assert num_validations(BASE | {"trainer": BASE["trainer"] | trainer}) == expected
