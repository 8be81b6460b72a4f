"""Validation: each problem is reported with its key, the value and what was expected."""

from copy import deepcopy
from typing import Any

import pytest
from support.runs import TINY, compose_config

from litlab.config.schema import SECTIONS, TRAINER_DECIDED
from litlab.config.tree import nodes, put
from litlab.config.validate import validate
from litlab.errors import UserError

CONFIG = compose_config(*TINY)
PLATEAU = "torch.optim.lr_scheduler.ReduceLROnPlateau"


def problems(**changes: Any) -> list[str]:
    """Return the problems of a config in which `group__key` is replaced."""
    config = deepcopy(CONFIG)
    for path, value in changes.items():
        put(config, path.replace("__", "."), value)
    with pytest.raises(UserError) as refused:
        validate(config)
    return str(refused.value).splitlines()


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("optimizer__lr", 0, "optimizer.lr=0: expected greater than 0"),
        ("optimizer__lr", "0.1", "optimizer.lr=0.1: expected a valid number"),
        ("optimizer__lr", float("nan"), "optimizer.lr=nan: expected a finite number"),
        ("optimizer__momentum", 1.0, "optimizer.momentum=1.0: expected less than 1"),
        ("data__batch_size", 16.0, "data.batch_size=16.0: expected a valid integer"),
        ("data__batch_size", True, "data.batch_size=true: expected a valid integer"),
        ("data__flip", 1, "data.flip=1: expected a valid boolean"),
        ("data__val_size", -1, "data.val_size=-1: expected greater than or equal to 0"),
        ("data__mean", [0.5, 0.0], "data.mean.1=0.0: expected greater than 0"),
        ("data__transforms__train", {}, "data.transforms.train={}: expected a valid list"),
        ("data__transforms__train", [{"size": 3}], "data.transforms.train.0={'size': 3}: expected a transform by _tar"),
        (
            "data__transforms__eval",
            ["my.crop"],
            "data.transforms.eval.0=my.crop: expected a node that names a class, as in 'data.transforms.eval.0={",
        ),
        ("callbacks__mine", "my.Callback", "expected a node that names a class, as in 'callbacks.mine={_target_: my.C"),
        ("callbacks__mine", "ema", "expected a node; to choose the config of that name, write callbacks=ema"),
        ("objective", "val/loss", "objective=val/loss: expected {metric: val/accuracy, mode: max}"),
        ("schedule", {**CONFIG["schedule"], "_target_": PLATEAU},
         f"schedule.interval: {PLATEAU} takes no interval, warmup, initial, final; if this comes from the default "
         f"schedule=one_cycle, replace that by ~schedule '+schedule={{_target_: {PLATEAU}}}', or write conf/schedule"),
        ("schedule", {"_target_": PLATEAU, "interval": "epoch"},
         f"schedule.interval: {PLATEAU} is stepped at each validation; leave out schedule.interval"),
        ("task__loss", {"_target_": "torch.nn.CrossEntropyLoss", "weight": [1, 2]}, "weights of the classes are task"),
        ("data__transforms__val", [], "data.transforms.val: unknown key"),
        ("seed", 2**32, f"seed={2**32}: expected less than {2**32}"),
        ("name", "../up", "name=../up: string should match pattern"),
        ("name", ".hidden", "name=.hidden: string should match pattern"),
        ("objective__mode", "best", "objective.mode=best: expected 'max' or 'min'"),
        ("objective__metric", "test/loss", "nothing is ever selected on the test split"),
        ("objective__metric", "test_acc", "nothing is ever selected on the test split"),
        ("objective__metric", "loss/test", "nothing is ever selected on the test split"),
        ("schedule__warmup", 1.5, "schedule.warmup=1.5: expected less than or equal to 1"),
        ("task__label_smoothing", 1.0, "task.label_smoothing=1.0: expected less than 1"),
        ("task__loss", {"gamma": 2}, "task.loss._target_: names the class to build"),
        ("task__loss", {"_target_": "my.Focal", "reduction": "mean"}, "its reduction is none: litlab takes the mean"),
        ("task__loss", "my.Focal", "task.loss=my.Focal: expected a node that names a class, as in 'task.loss={"),
        ("task__loss", {"_target_": "litlab.Focal"}, "task.loss._target_=litlab.Focal: litlab has no such class"),
        (
            "task__class_weights",
            [1.0, -1.0],
            "task.class_weights=[1.0, -1.0]: expected balanced, null or one weight",
        ),
        (
            "task__class_weights",
            [1.0, float("nan")],
            "expected balanced, null or one weight",
        ),
        (
            "task__class_weights",
            [1.0, float("inf")],
            "expected balanced, null or one weight",
        ),
        (
            "task__class_weights",
            [0, 0.0],
            "task.class_weights=[0, 0.0]: expected balanced, null or one weight",
        ),
        (
            "task__class_weights",
            [1.0],
            "task.class_weights=[1.0]: expected balanced, null or one weight",
        ),
        ("task__class_weights", [1, True], "task.class_weights=[1, True]: expected balanced, null or one weight"),
        (
            "task__class_weights",
            "even",
            "task.class_weights=even: expected balanced, null or one weight",
        ),
        ("task__metrics", {"accuracy": {"_target_": "my.F1"}}, "accuracy is a built-in metric; use another name"),
        ("task__metrics", {"val/f1": {"_target_": "my.F1"}}, "string should match pattern"),
        ("task__metrics", {"f1": {"average": "macro"}}, "task.metrics.f1._target_: names the class to build"),
        ("task__metrics", {"f1": "my.F1"}, "task.metrics.f1=my.F1: expected a node that names a"),
        ("objective__metric", "val/f1", "objective.metric=val/f1: is not measured in validation"),
        ("objective__metric", "val/loss", "objective.mode=max: lower values of val/loss are better; set it to min"),
        ("objective__mode", "min", "objective.mode=min: higher values of val/accuracy are better; set it to max"),
        ("trainer__precision", "32", "trainer.precision=32: expected 'auto', '64-true'"),
        ("trainer__max_epochs", 0, "trainer.max_epochs=0: expected greater than or equal to 1, or -1"),
        ("trainer__limit_train_batches", 1.5, "trainer.limit_train_batches=1.5: expected less than or equal to 1"),
        ("model__widths", [], "model.widths=[]: list should have at least 1 item"),
        ("format", 1, "format=1: expected 2"),
        ("data__batchsize", 1, "data.batchsize: unknown key; did you mean data.batch_size?"),
        ("nonsense", 1, "nonsense: unknown key; known here: "),
        ("model___target_", "litlab.models.Nothing", "litlab has no such class"),
        ("model___target_", None, "model._target_: names the class to build"),
        ("data__num_train", "???", "data.num_train: a value is missing; set data.num_train=..."),
        ("callbacks__mine", {"x": 1}, "callbacks.mine._target_: names the class to build"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused_in_one_line(key: str, value: object, expected: str) -> None:
    (line,) = problems(**{key: value})
    assert expected in line


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("image_size", 0, "data.image_size=0: expected greater than or equal to 1"),
        ("image_size", [32], "data.image_size=[32]: expected a valid integer, or list should have at least 2 items"),
        ("image_size", [1, 2, 3], "or list should have at most 2 items"),
        ("resize", "stretch", "data.resize=stretch: expected 'squash', 'crop' or 'pad'"),
    ],
)
def test_sizes_of_images(key: str, value: object, expected: str) -> None:
    config = compose_config("data=image_folder", "data.root=/x", "data.image_size=[24,32]", "data.resize=pad")
    with pytest.raises(UserError) as refused:
        validate(config | {"data": config["data"] | {key: value}})
    assert expected in str(refused.value)


def test_label_smoothing_is_for_cross_entropy() -> None:
    (line,) = problems(task__label_smoothing=0.1, task__loss={"_target_": "my.Focal", "gamma": 2})
    assert line.startswith("task.label_smoothing=0.1: is for cross entropy, not for task.loss=my.Focal; set it to 0")


def test_all_problems_are_reported_once() -> None:
    lines = problems(optimizer__lr=-1, data__batch_size=0, seed=-1)
    assert sorted(line.partition("=")[0] for line in lines) == ["data.batch_size", "optimizer.lr", "seed"]


def test_a_missing_key_is_named() -> None:
    config = deepcopy(CONFIG)
    del config["model"]["widths"], config["seed"]
    with pytest.raises(UserError) as refused:
        validate(config)
    assert set(str(refused.value).splitlines()) == {
        "model.widths: a value is missing; set model.widths=...",
        "seed: a value is missing; set seed=...",
    }


@pytest.mark.parametrize(
    ("devices", "num_nodes", "choices"), [(3, 1, "15 or 18"), ([0, 1, 2], 1, "15 or 18"), (2, 9, "18"), (32, 1, "32")]
)
def test_devices_divide_the_batch(devices: object, num_nodes: int, choices: str) -> None:
    (line,) = problems(trainer__devices=devices, trainer__num_nodes=num_nodes)
    assert line.endswith(f"must divide it; use {choices}")


def test_arguments_of_foreign_classes_are_not_checked() -> None:
    config = deepcopy(CONFIG)
    config["model"] = {"_target_": "some.Net", "width": -1}
    config["data"] = {"_target_": "some.Data", "batch_size": 17}
    config["trainer"]["devices"] = 2
    validate(config)
    assert [path for path, node in nodes(config) if node["_target_"] not in SECTIONS] == ["data", "model"]


def test_arguments_of_the_trainer_that_litlab_decides_are_refused_with_what_to_use_instead() -> None:
    for name in TRAINER_DECIDED:
        for target in ("lightning.pytorch.Trainer", "some.Trainer"):
            (line,) = problems(**{"trainer___target_": target, f"trainer__{name}": True})
            assert line == f"trainer.{name}: can't be set: {TRAINER_DECIDED[name]}"


@pytest.mark.parametrize(
    ("name", "value"), [("use_distributed_sampler", False), ("reload_dataloaders_every_n_epochs", 2)]
)
def test_arguments_of_the_trainer_for_other_loaders_need_them(name: str, value: object) -> None:
    (line,) = problems(**{f"trainer__{name}": value})
    assert line.startswith(f"trainer.{name}={str(value).lower()}: is for a data module of your own")
    config = deepcopy(CONFIG)
    config["trainer"][name] = value
    validate(config | {"data": {"_target_": "some.Data"}})


@pytest.mark.parametrize(
    ("folds", "fold", "expected"),
    [
        (5, 5, "data.fold=5: there are 5 folds (data.folds), counted from 0; expected 0 to 4"),
        (
            3,
            None,
            "data.folds=3: add the fold to validate on, data.fold=0, or for all of them -m data.fold=0,1,2",
        ),
        (
            20,
            None,
            "data.fold=0, or for all of them -m 'data.fold=range(20)'",
        ),
        (None, 0, "data.fold=0: of how many folds; add data.folds=5"),
        (1, 0, "data.folds=1: expected greater than or equal to 2"),
        (5, -1, "data.fold=-1: expected greater than or equal to 0"),
    ],
)
def test_folds_that_do_not_fit_are_refused(folds: int | None, fold: int | None, expected: str) -> None:
    (line,) = problems(data__folds=folds, data__fold=fold)
    assert line.endswith(expected)


def test_a_size_of_the_validation_is_refused_beside_folds() -> None:
    folds = ("data=shapes", "data.folds=5", "data.fold=0")
    assert compose_config(*folds)["data"]["fold"] == 0
    with pytest.raises(UserError, match=r"data.val_size=40: is not used with data.folds"):
        compose_config(*folds, "data.val_size=40")


@pytest.mark.parametrize("value", ["00:12:00:00", {"days": 1, "hours": 2}])
def test_durations(value: object) -> None:
    config = deepcopy(CONFIG)
    config["trainer"] |= {"max_time": value, "val_check_interval": value}
    validate(config)
    assert problems(trainer__max_time="12 hours")[0].startswith("trainer.max_time=12 hours: ")
    assert problems(trainer__max_time={"fortnights": 1})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("num_nodes", "x", "trainer.num_nodes=x: expected"),
        ("devices", {}, "trainer.devices"),
        ("devices", 0, "trainer.devices=0: expected"),
    ],
)
def test_device_arguments_of_a_foreign_trainer_are_checked(key: str, value: object, expected: str) -> None:
    (line,) = problems(**{"trainer___target_": "some.Trainer", f"trainer__{key}": value})
    assert line.startswith(expected)


def test_null_callbacks_are_switched_off() -> None:
    config = deepcopy(CONFIG)
    config["callbacks"]["training_images"] = None
    before = deepcopy(config)
    validate(config)
    assert before == config, "validated in place"
    assert "callbacks.training_images" not in [path for path, _ in nodes(config)]


@pytest.mark.parametrize("data", [None, {"_target_": "my.Data", "folders": ["a", "b"], "val_size": 0}])
@pytest.mark.parametrize("metrics", [None, 3, True])
def test_keys_of_foreign_classes_that_have_names_of_ours_mean_nothing_to_the_checks(data: Any, metrics: Any) -> None:
    early_stopping = {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/mse", "mode": "min"}
    validate(
        CONFIG
        | {"data": data, "task": {"_target_": "my.Task", "metrics": metrics}, "callbacks": {"stop": early_stopping}}
        | {"objective": {"metric": "val/mse", "mode": "min"}}
    )
