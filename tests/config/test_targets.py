"""Foreign targets: imports, and arguments compared with signatures."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY, compose_config
from support.warm_targets import warm_foreign_problems

from litlab.config.targets import Call, _problem, check_foreign, import_target
from litlab.errors import UserError

MODULE = """
from abc import ABC, abstractmethod

class Net:
    class Inner:
        pass

    def __init__(self, *, num_classes, width, depth=3): ...

class Loose:
    def __init__(self, **kwargs): ...

class Schedule:
    def __init__(self, wrapped, total_steps, gamma): ...

class ReduceLROnPlateau: ...

class Plateau(ReduceLROnPlateau):
    def __init__(self, optimizer): ...

class Optimizer:
    def __init__(self, parameters, lr): ...

def make(width): ...

class Abstract(ABC):
    @abstractmethod
    def load_images(self): ...

NUMBER = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "foreignpkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(MODULE)
    (package / "missing.py").write_text("import nowhere_at_all\n")
    (package / "renamed.py").write_text("import pytorch_lightning as pl\nclass Net(pl.LightningModule): ...\n")
    (package / "broken.py").write_text("1 / 0\n")
    (package / "leaves.py").write_text("raise SystemExit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.startswith("foreignpkg")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_class_a_nested_one_and_a_function_are_found() -> None:
    assert import_target("foreignpkg.nets.Net").__name__ == "Net"
    assert import_target("foreignpkg.nets.Net.Inner").__name__ == "Inner"
    assert import_target("foreignpkg.nets.make").__name__ == "make"


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("foreignpkg.nets.Nett", "foreignpkg.nets has no 'Nett'; did you mean Net"),
        ("foreignpkg.net.Net", "foreignpkg has no 'net'; did you mean nets"),
        ("foreignpkk.nets.Net", "there is no module 'foreignpkk' here"),
        ("foreignpkg.missing.Net", "foreignpkg.missing cannot be imported: No module named 'nowhere_at_all'"),
        ("Net", "there is no module 'Net' here"),
        ("foreignpkg.nets.X", "nets has no 'X'; it has Net, Loose, Schedule, ReduceLROnPlateau, Plateau, Optimizer, "),
        (
            "torchmetrics.MulticlassF1Score",
            "has no 'MulticlassF1Score'; did you mean torchmetrics.classification.MulticlassF1Score",
        ),
    ],
)
def test_missing_modules_and_attributes_are_named(target: str, expected: str) -> None:
    import_target("foreignpkg.nets.Net")
    with pytest.raises(UserError) as refused:
        import_target(target)
    assert expected in str(refused.value)


@pytest.mark.parametrize(
    ("path", "name", "arguments", "expected"),
    [
        ("model", "Net", ["width"], None),
        ("model", "Net", ["width", "depth"], None),
        ("model", "Net", [], "needs width; set model.width=..."),
        ("model", "Net", ["width", "wide"], "takes no argument 'wide'"),
        ("model", "Net", ["widht"], "takes no argument 'widht'; did you mean width"),
        ("data", "Net", ["width"], "needs num_classes"),
        ("model", "Loose", ["anything"], None),
        ("schedule", "Schedule", ["gamma"], None),
        ("schedule", "Schedule", ["gamma", "interval"], None),
        ("schedule", "Loose", [], "counts its steps; set +schedule.interval=epoch to step it after each epoch, or "),
        ("schedule", "Plateau", ["interval"], "is stepped at each validation; leave out schedule.interval"),
        ("schedule", "Plateau", [], None),
        ("schedule", "Schedule", [], "needs gamma"),
        ("optimizer", "Optimizer", ["lr"], None),
        ("callbacks.mine", "Net", ["width"], None),
        ("logger.mine", "make", [], "logger.mine: foreignpkg.nets.make needs width"),
        ("task.loss", "make", [], "make needs width; a function is called with these by litlab if its node has `_par"),
        ("data", "Abstract", [], "data._target_: foreignpkg.nets.Abstract has to define load_images"),
        ("model", "Net", ["width", "widths", "hidden"],
         "model.widths: foreignpkg.nets.Net takes no widths, hidden; if this comes from the default model=cnn, repl"),
    ],
)  # fmt: skip
def test_arguments_are_compared_with_the_signature(
    path: str, name: str, arguments: list[str], expected: str | None
) -> None:
    problem = _problem(Call(path, f"foreignpkg.nets.{name}", arguments))
    assert problem is None if expected is None else expected in (problem or "")


def test_targets_that_are_no_classes() -> None:
    assert _problem(Call("model", "foreignpkg.nets.NUMBER", [])) == (
        "model._target_: foreignpkg.nets.NUMBER is a int, not a class"
    )
    assert _problem(Call("model", "foreignpkg.broken.Net", [])) == (
        "model._target_: importing foreignpkg.broken.Net raised ZeroDivisionError: division by zero"
    )


def test_litlabs_own_classes_need_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    check_foreign({"model": {"_target_": "litlab.models.cnn.CNN"}})


def test_a_module_that_ends_the_process_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"importing foreignpkg\.leaves\.Net ended the process"):
        check_foreign({"model": {"_target_": "foreignpkg.leaves.Net"}})


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("LearningRateFinder", "find it by a multirun, as in -m optimizer.lr=0.01,0.1"),
        ("BatchSizeFinder", "and set it, as in data.batch_size=256"),
        ("StochasticWeightAveraging", "average the weights by callbacks=ema"),
        ("ModelPruning", "prune the network after the training"),
        ("ProgressBar", "leave it out, as litlab shows the progress on a terminal"),
    ],
)
def test_callbacks_that_no_run_can_have_are_refused(name: str, remedy: str) -> None:
    problem = _problem(Call("callbacks.mine", f"lightning.pytorch.callbacks.{name}", []))
    assert problem is not None
    assert problem.startswith(f"callbacks.mine._target_: {name} ")
    assert remedy in problem


def test_a_subclass_of_such_a_callback_is_refused_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "foreignpkg" / "finders.py").write_text(
        "from lightning.pytorch import callbacks\nclass Finder(callbacks.LearningRateFinder): ...\n"
    )
    problem = _problem(Call("callbacks.mine", "foreignpkg.finders.Finder", []))
    assert problem is not None
    assert problem.startswith("callbacks.mine._target_: LearningRateFinder sets the learning rate while a run starts")
    for bar in ("TQDMProgressBar", "RichProgressBar"):
        problem = _problem(Call("callbacks.bar", f"lightning.pytorch.callbacks.{bar}", []))
        assert problem is not None
        assert problem.startswith("callbacks.bar._target_: ProgressBar is a second progress bar, beside that of litlab")
    assert _problem(Call("callbacks.mine", "lightning.pytorch.callbacks.EarlyStopping", ["monitor"])) is None


def node(name: str, **arguments: Any) -> dict[str, Any]:
    return {"_target_": f"foreignpkg.nets.{name}", **arguments}


NESTED: dict[str, tuple[dict[str, Any], str | None]] = {
    "in a dict": (
        {"model": node("Loose", head=node("make", widht=3))},
        "model.head.widht: foreignpkg.nets.make takes no",
    ),
    "in a list": ({"model": node("Loose", heads=[node("make")])}, "model.heads.0: foreignpkg.nets.make needs width"),
    "in plain data": (
        {"model": node("Loose", a={"b": [node("make")]})},
        "model.a.b.0: foreignpkg.nets.make needs width",
    ),
    "in _args_": ({"model": node("make", _args_=[node("make")])}, "model._args_.0: foreignpkg.nets.make needs width"),
    "with all that it needs": ({"model": node("Loose", head=node("make", width=3))}, None),
    "with a fact of the data": ({"model": node("Loose", head=node("Net", width=3))}, None),
    "without facts": (
        {"data": node("Loose", head=node("Net", width=3))},
        "data.head: foreignpkg.nets.Net needs num_classes",
    ),
    "missing": (
        {"model": node("Loose", head=node("Nett"))},
        "model.head._target_: foreignpkg.nets.Nett: foreignpkg.nets has no",
    ),
    "partial": ({"schedule": node("Loose", interval="step", parts=[node("Schedule", _partial_=True)])}, None),
    "partial with a typo": (
        {"schedule": node("Loose", interval="step", parts=[node("Schedule", _partial_=True, gama=1)])},
        "schedule.parts.0.gama: foreignpkg.nets.Schedule takes no argument 'gama'; did you mean gamma",
    ),
    "inside a schedule, handed what the outer one is": (
        {"schedule": node("Loose", interval="step", a=node("Plateau"))},
        None,
    ),
    "an interval inside a schedule": (
        {"schedule": node("Loose", interval="step", a=node("Plateau", interval="step"))},
        "schedule.a.interval: foreignpkg.nets.Plateau takes no argument 'interval'",
    ),
    "inside a schedule": (
        {"schedule": node("Loose", interval="step", a=node("Schedule"))},
        "schedule.a: foreignpkg.nets.Schedule needs wrap",
    ),
    "not recursive": ({"model": node("Loose", _recursive_=False, head=node("make"))}, None),
    "by position": ({"model": node("Loose", head=node("make", _args_=[3]))}, None),
    "by position and name": (
        {"model": node("Loose", head=node("make", _args_=[3], width=3))},
        "gets 'width' by position",
    ),
    "too many by position": (
        {"model": node("make", _args_=[3, 4])},
        "model._args_: foreignpkg.nets.make takes at most 1",
    ),
    "of litlab": (
        {"model": node("Loose", net={"_target_": "litlab.models.cnn.CNN", "widht": 3})},
        "model.net.widht: litlab.models.cnn.CNN takes no argument 'widht'",
    ),
    "a class that is found": (
        {"model": node("Loose", kind={"_target_": "hydra.utils.get_class", "path": "foreignpkg.nets.Net"})},
        None,
    ),
    "a class that is not": (
        {"model": node("Loose", kind={"_target_": "hydra.utils.get_class", "path": "foreignpkg.nets.Nett"})},
        "model.kind.path: foreignpkg.nets.Nett: foreignpkg.nets has no 'Nett'; did you mean Net",
    ),
    "in a strategy": (
        {"trainer": {"_target_": "lightning.pytorch.Trainer", "strategy": node("make", widht=3)}},
        "trainer.strategy.widht: foreignpkg.nets.make takes no argument",
    ),
}


def test_nodes_inside_others_are_checked_like_them(tmp_path: Path) -> None:
    configs = [config for config, _ in NESTED.values()]
    found = dict(zip(NESTED, warm_foreign_problems(configs, tmp_path), strict=True))
    for name, (_, expected) in NESTED.items():
        assert len(found[name]) == (expected is not None), (name, found[name])
        assert expected is None or expected in found[name][0], (name, found[name])


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_logger_whose_package_is_not_installed_is_refused() -> None:
    target = "lightning.pytorch.loggers.WandbLogger"
    expected = f"logger.w._target_: {target} needs the package wandb, which is not installed here; install it"
    assert _problem(Call("logger.w", target, [])) == expected
    assert _problem(Call("logger.w", "lightning.pytorch.loggers.CSVLogger", ["save_dir"])) is None


def test_modules_of_a_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the other package of Lightning; without a data module, those that have to have loaders."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    configs = [
        {"task": {"_target_": "foreignpkg.renamed.Net"}},
        {"data": None, "task": {"_target_": "lightning.pytorch.demos.boring_classes.BoringModel"}},
        {"data": None, "task": {"_target_": "support.foreign_tasks.Tutorial"}},
        {"data": None, "task": {"_target_": "support.foreign_tasks.GAN"}},
        compose_config(*TINY[5:], "~data", "task._target_=training.test_foreign_data.Loading"),
    ]
    renamed, boring, tutorial, gan, subclass = warm_foreign_problems(configs, Path(__file__).parents[1])
    assert renamed == [
        "task._target_: foreignpkg.renamed.Net derives from pytorch_lightning.core.module.LightningModule; "
        "change the import to lightning.pytorch, which has the same classes"
    ]
    assert gan == [
        "task._target_: support.foreign_tasks.GAN does not define train_dataloader, which it has to without a data "
        "module (data=null): define it, or choose a data module by data=..."
    ]
    assert (boring, tutorial, subclass) == ([], [], [])


@pytest.mark.parametrize(("name", "more"), [("MulticlassF1Score", ()), ("F1Score", ("task",))])
def test_the_keyword_arguments_of_metrics_of_torchmetrics_are_known(name: str, more: tuple[str, ...]) -> None:
    target = f"torchmetrics.classification.{name}"
    call = Call("task.metrics.f1", target, ("average", "sync_on_compute", *more), is_inner=True)
    assert _problem(call) is None
    assert more or _problem(replace(call, target="torchmetrics.F1Score")) == (
        "task.metrics.f1: torchmetrics.F1Score needs task; set task.metrics.f1.task=multiclass"
    )
    expected = f"task.metrics.f1.averag: {target} takes no argument 'averag'; did you mean average"
    assert _problem(replace(call, arguments=("averag", *more))) == expected
