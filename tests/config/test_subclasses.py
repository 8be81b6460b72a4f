"""Subclasses of litlab's classes, in a project of a user's own: the schema holds for what they inherit."""

import sys
from pathlib import Path

import pytest
from support.runs import TINY, compose_config
from support.warm_targets import warm_foreign_problems

from litlab.config.targets import check_foreign, constructor_parameters, find_base, import_target
from litlab.errors import UserError

MODULE = """
from lightning.pytorch import LightningModule

from litlab.callbacks.ema import EMA
from litlab.data.module import ImageDataModule
from litlab.data.shapes import Shapes
from litlab.models.cnn import CNN
from litlab.tasks.image_classifier import ImageClassifier


class Own(ImageDataModule):
    def __init__(self, *, amount: int, **settings):
        super().__init__(**settings)

    def load_images(self): ...


class Inherits(Shapes):
    pass


class Varies(Shapes):
    def __init__(self, *, variant, **settings):
        super().__init__(**settings)


class Fixes(Shapes):
    def __init__(self, *, noise=0.5, **settings):
        super().__init__(mixup=0.0, **settings)


class Below(Fixes):
    def __init__(self, tint, **settings):
        super().__init__(**settings)


class Names(Shapes):
    def __init__(self, *, flip, batch_size=16, **settings):
        super().__init__(flip=flip, batch_size=batch_size, **settings)


class Closed(Shapes):
    def __init__(self, *, num_train, flip): ...


class Focal(ImageClassifier):
    def __init__(self, *, gamma: float, **arguments):
        super().__init__(**arguments)


class Wide(CNN):
    def __init__(self, *, factor: int = 2, **arguments):
        super().__init__(**arguments)


class Slow(EMA):
    pass


class Foreign(LightningModule):
    def __init__(self, lr=0.1, **arguments): ...


class TakesOptimizer(LightningModule):
    def __init__(self, optimizer): ...


class TakesAll(LightningModule):
    def __init__(self, network, optimizer, schedule=None): ...
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "subclasses.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "subclasses", raising=False)
    return tmp_path


def data(name: str, *overrides: str) -> tuple[str, ...]:
    return (*TINY, f"data._target_=subclasses.{name}", *overrides)


def own(*overrides: str) -> tuple[str, ...]:
    return data("Own", "~data.num_train", "~data.num_test", "~data.data_seed", *overrides)


def task(name: str, *overrides: str) -> tuple[str, ...]:
    return (*TINY, f"task._target_=subclasses.{name}", *overrides)


FOCAL = "+task.gamma=2.0"
ACCEPTED: list[tuple[str, ...]] = [
    data("Inherits"),
    data("Inherits", "data.flip=alternating"),
    data("Varies", "+data.variant=blue"),  # a name that another data module of ours has
    data("Fixes", "~data.mixup"),
    data("Fixes", "~data.mixup", "+data.noise=0.1"),
    data("Below", "~data.mixup", "+data.tint=blue"),
    data("Names", "~data.batch_size"),
    own("+data.amount=3"),
    task("Focal", FOCAL),
    task("Focal", FOCAL, "objective.metric=val/focal"),
    (*TINY, "model._target_=subclasses.Wide"),
    (*TINY, "model._target_=subclasses.Wide", "+model.num_classes=10"),
]
REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "flip": (data("Inherits", "data.flip=maybe"), "data.flip=maybe: expected"),
    "mixup": (own("+data.amount=3", "data.mixup=-1"), "data.mixup=-1: expected"),
    "batch size": (own("+data.amount=3", "data.batch_size=0"), "data.batch_size=0: expected"),
    "a key that it names itself": (data("Names", "data.batch_size=0"), "data.batch_size=0: expected"),
    "a key inside another": (
        data("Inherits", "+data.rand_augment.num_ops=1"),
        "data.rand_augment.magnitude: a value is missing",
    ),
    "devices": (data("Inherits", "trainer.devices=3"), "so 3 devices must divide it; use 15 or 18"),
    "folds": (data("Inherits", "data.fold=5"), "data.fold=5: of how many folds"),
    "sizes without an end": (
        data("Inherits", "data.progressive_sizes=[24,32]", "trainer.max_epochs=-1"),
        "data.progressive_sizes: each has an equal share",
    ),
    "a typo": (
        data("Inherits", "+data.flipp=true"),
        "data.flipp: subclasses.Inherits takes no argument 'flipp'; did you mean flip",
    ),
    "a key of its own that is missing": (own(), "data: subclasses.Own needs amount; set data.amount=..."),
    "an inherited key that is missing": (
        data("Inherits", "~data.flip"),
        "data: subclasses.Inherits needs flip; set data.flip=...",
    ),
    "what it passes itself": (data("Fixes"), "data.mixup: subclasses.Fixes takes no argument 'mixup'"),
    "what its base passes": (
        data("Below", "+data.tint=1"),
        "data.mixup: subclasses.Below takes no argument 'mixup'",
    ),
    "what it does not pass on": (data("Closed"), "subclasses.Closed takes no argument"),
    "label smoothing": (task("Focal", FOCAL, "task.label_smoothing=2"), "task.label_smoothing=2: expected"),
    "a key of its own": (task("Focal"), "task: subclasses.Focal needs gamma"),
    "a typo in a key of its own": (
        task("Focal", FOCAL, "+task.gama=1"),
        "task.gama: subclasses.Focal takes no argument 'gama'; did you mean gamma",
    ),
    "widths": ((*TINY, "model._target_=subclasses.Wide", "model.widths=[0]"), "model.widths.0=0: expected"),
    "a fact": (
        (*TINY, "model._target_=subclasses.Wide", "+model.num_classes=0"),
        "model.num_classes=0: expected",
    ),
    "a metric": (
        task("Focal", FOCAL, "+task.metrics.f1.average=macro"),
        "task.metrics.f1._target_: names the class to build",
    ),
    "a callback": (
        (*TINY, "callbacks=ema", "callbacks.ema._target_=subclasses.Slow", "callbacks.ema.decay=1.5"),
        "callbacks.ema.decay=1.5: expected",
    ),
}


KEPT = tuple(override for override in TINY if not override.startswith("model"))
BARE = ("task={_target_: subclasses.Foreign}", "objective=null")


REMEDIES: list[tuple[str, tuple[str, ...], str | None]] = [  # class, what the user leaves out -> what else to
    ("Foreign", (), "~model ~optimizer ~schedule"),
    ("Foreign", ("~model",), "~optimizer ~schedule"),
    ("TakesOptimizer", (), "~model ~schedule"),
    ("TakesOptimizer", ("~schedule",), "~model"),
    ("TakesOptimizer", ("~schedule", "+task.optimizer.lr=1"), "~model ~optimizer"),
    ("TakesOptimizer", ("~schedule", "~model", "+task.optimizer.lr=1"), "~optimizer"),
    ("TakesAll", (), None),
    ("Foreign", ("~model", "~optimizer", "~schedule"), None),
]


def own_task(name: str, *left_out: str) -> tuple[str, ...]:
    return (*KEPT, "~task", f"+task._target_=subclasses.{name}", *left_out)


Found = dict[tuple[str, ...], list[str]]  # overrides -> problems


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Check all configs in one process."""
    project = tmp_path_factory.mktemp("project")
    (project / "subclasses.py").write_text(MODULE)
    tasks = [own_task(name, *left_out) for name, left_out, _ in REMEDIES]
    overrides = [*ACCEPTED, *(refused for refused, _ in REFUSED.values()), *tasks]
    problems = warm_foreign_problems([compose_config(*each) for each in overrides], project)
    return dict(zip(overrides, problems, strict=True))


def test_what_a_subclass_inherits_is_checked_by_the_schema(found: Found) -> None:
    for overrides in ACCEPTED:
        assert found[overrides] == [], overrides
    for name, (overrides, expected) in REFUSED.items():
        assert any(expected in problem for problem in found[overrides]), (name, found[overrides])


def test_groups_that_the_task_does_not_take_are_refused_with_the_remedy(found: Found) -> None:
    for name, left_out, remedy in REMEDIES:
        problems = found[own_task(name, *left_out)]
        if remedy is None:
            assert problems == []
        else:
            (problem,) = problems
            assert problem.startswith(
                f"task: subclasses.{name} {'has' if remedy == '~optimizer' else 'takes no argument'} "
            )
            assert problem.endswith(f": {remedy}")


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("name", "base", "inherited"),
    [
        ("Own", "litlab.data.module.ImageDataModule", {"amount", "flip", "progressive_sizes"}),
        ("Fixes", "litlab.data.shapes.Shapes", {"noise", "num_train", "flip"}),
        ("Below", "litlab.data.shapes.Shapes", {"tint", "noise", "data_seed", "seed"}),
        ("Focal", "litlab.tasks.image_classifier.ImageClassifier", {"gamma", "network", "optimizer", "schedule"}),
        ("Wide", "litlab.models.cnn.CNN", {"factor", "num_classes", "image_shape", "hidden"}),
    ],
)
def test_kwargs_take_what_the_base_takes(name: str, base: str, inherited: set[str]) -> None:
    target = import_target(f"subclasses.{name}")
    assert find_base(target) == base
    parameters = constructor_parameters(target)
    assert inherited <= parameters.keys()
    assert not {"settings", "arguments"} & parameters.keys()
    assert ("mixup" in parameters) == (name == "Own")


@pytest.mark.usefixtures("project")
def test_networks_of_torchvision_take_the_number_of_classes_by_kwargs() -> None:
    assert "num_classes" in constructor_parameters(import_target("torchvision.models.resnet18"))
    assert "num_classes" in constructor_parameters(import_target("torchvision.models.get_model"))
    assert "num_classes" not in constructor_parameters(import_target("subclasses.Foreign"))


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["model=timm", "model.name=resnet18"], r"^model: needs the package timm, .*: pip install timm$"),
        (["data=huggingface", "data.path=x/y"], r"^data: needs the package datasets, .*: pip install datasets$"),
    ],
)
def test_a_class_whose_package_is_not_installed_is_refused_with_the_command(
    overrides: list[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose_config(*overrides)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=expected):
        check_foreign(config)
