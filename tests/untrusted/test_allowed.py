"""Names that an untrusted run may use: those on the list, and those that the user allows."""

import inspect
import os
import shutil
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml
from support.hostile import change, plant
from support.saved_run import CLASS_NAMES, make_info, make_run
from torch import nn
from torch.optim import lr_scheduler

import litlab
from litlab.cli import evaluate
from litlab.config.schema import SECTIONS
from litlab.config.trust import ALLOWED_TARGETS, OPTIMIZERS, SCHEDULERS, allowed_names, trusted_config
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.runs.directory import RunDirectory

ABSTRACT = {"Optimizer", "LRScheduler", "_LRScheduler"}
NOT_FROM_PLAIN_ARGUMENTS = {"ChainedScheduler", "LambdaLR", "MultiplicativeLR", "SequentialLR"}


@pytest.mark.parametrize(
    ("module", "base", "names"),
    [(torch.optim, torch.optim.Optimizer, OPTIMIZERS), (lr_scheduler, lr_scheduler.LRScheduler, SCHEDULERS)],
)
def test_the_list_names_torchs_optimizers_and_schedulers(
    module: ModuleType, base: type, names: tuple[str, ...]
) -> None:
    classes = {name for name, value in vars(module).items() if inspect.isclass(value) and issubclass(value, base)}
    assert classes - ABSTRACT - NOT_FROM_PLAIN_ARGUMENTS == set(names)


def test_the_list_holds_the_classes_of_litlabs_configs_in_their_groups_only() -> None:
    remote = ("litlab.loggers.WandB", "litlab.loggers.MLflow")  # send what they are given to other machines
    for target in SECTIONS:
        groups = [group for group, targets in ALLOWED_TARGETS.items() if target in targets]
        assert len(groups) == (target not in remote), target


def test_allowing_a_package_allows_it_and_no_other(run: Path, mark: Path) -> None:
    plant(Path.cwd(), mark)
    (Path.cwd() / "unasked.py").write_text("")
    (run / "checkpoints" / "last.ckpt").unlink()
    for target in ("theirs.Net", "theirs.make"):
        change(run, model={"_target_": target})
        with pytest.raises(UserError, match="--allow theirs"):
            litlab.load(run, allow=["another"])
    assert not mark.exists()
    finished = FinishedRun.open(run, ["theirs"], ["model"])
    assert finished.select_settings("model") == {"model": {"_target_": "theirs.make"}}
    assert mark.exists()
    assert not finished.own
    with pytest.raises(ModuleNotFoundError):
        import unasked  # noqa: F401  # lies beside it


@pytest.mark.parametrize(
    ("target", "allow", "reason"),
    [
        ("theirs.Path.touch", "theirs", "is defined in pathlib, not in an allowed package"),
        ("theirs.nn.Linear", "theirs", "is defined in torch.nn.modules.linear, not in an allowed package"),
        ("torch.nn.functional.importlib.import_module", "torch.nn", "is defined in importlib"),
        ("torch.nn.modules.module.torch.load", "torch.nn", "is defined in torch.serialization"),
        ("torch.nn", "torch.nn.Linear", "is not on the list"),
        ("theirs.Nothing", "theirs", "theirs has no 'Nothing'"),
    ],
)
def test_an_allowed_package_does_not_allow_what_it_imports(
    target: str, allow: str, reason: str, run: Path, mark: Path
) -> None:
    plant(Path.cwd(), mark)
    change(run, model={"_target_": target})
    with pytest.raises(UserError, match=reason):
        litlab.load(run, allow=allow)


def test_allowing_one_class(run: Path) -> None:
    change(run, model={"_target_": "torch.nn.Linear", "in_features": 1, "out_features": 1})
    assert FinishedRun.open(run, ["torch.nn.Linear"], ["model"]).select_settings("model")
    with pytest.raises(UserError, match=r"--allow torch\.nn\.Linear"):
        FinishedRun.open(run, ["torch.nn.Conv2d"], ["model"])


def test_a_network_of_an_allowed_package_by_argument_or_environment(run: Path, mark: Path) -> None:
    plant(Path.cwd(), mark)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 3))
    shutil.rmtree(run)
    make_run(run, network, {"_target_": "theirs.Net"}, make_info())
    assert litlab.load(run, allow="theirs").class_names == CLASS_NAMES
    os.environ["LITLAB_ALLOW"] = "another, theirs"
    assert litlab.load(run).class_names == CLASS_NAMES


@pytest.mark.parametrize("name", ["os", "subprocess", "builtins", "hydra.utils", "a b", "../x", "", "1x"])
def test_names_that_cannot_be_allowed(name: str) -> None:
    with pytest.raises(UserError, match="--allow"):
        allowed_names([name])


def test_a_run_of_listed_and_allowed_classes_is_used_as_ones_own(
    whole: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    change(
        whole.path,
        optimizer={"_target_": "torch.optim.Adam", "lr": 0.1},
        schedule={"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3},
        callbacks={"stop": {"_target_": "lightning.pytorch.callbacks.Timer", "duration": "00:01:00:00"}},
        logger={"rows": {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "rows"}},
    )
    frozen = yaml.safe_load(whole.config.read_text())
    frozen["trainer"]["strategy"] = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "static_graph": True}
    change(whole.path, **frozen)
    with pytest.raises(UserError, match=r"--allow lightning\.pytorch\.callbacks\.Timer"):
        trusted_config(whole, frozen)
    os.environ["LITLAB_ALLOW"] = "lightning.pytorch"
    assert trusted_config(whole, frozen) == frozen
    frozen["trainer"]["strategy"] = "auto"
    change(whole.path, **frozen)
    evaluate.main([str(whole.path)])
    assert "test/accuracy" in capsys.readouterr().out


def test_a_network_of_nested_modules(tmp_path: Path) -> None:
    node = {
        "_target_": "torch.nn.Sequential",
        "_args_": [
            {"_target_": "torch.nn.Flatten"},
            {"_target_": "torch.nn.Linear", "in_features": 1200, "out_features": 3},
        ],
    }
    network = nn.Sequential(nn.Flatten(), nn.Linear(1200, 3))
    run = make_run(tmp_path / "nested", network, node, make_info())
    images = torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
    predictor = litlab.load(run, allow=["torch.nn"])
    assert torch.equal(predictor(images), network(predictor.preprocess(images)).softmax(dim=1))


def test_only_the_groups_in_use_are_checked(run: Path, mark: Path) -> None:
    """Logger, data and Trainer of the run belong to missing packages; loading a network needs none of them."""
    assert litlab.load(run).class_names == CLASS_NAMES
    with pytest.raises(UserError, match=r"data\._target_(.|\n)*logger\.remote\._target_"):
        FinishedRun.open(run)
