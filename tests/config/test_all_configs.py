"""Every config in conf/ composes and can be built; the debug configs work."""

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from lightning.pytorch import LightningModule, Trainer
from support.runs import TINY, compose_config, train_here
from torch import Tensor, nn

from litlab.config.compose import register_resolvers
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf
from litlab.config.schema import OPTIONAL_PACKAGES
from litlab.config.targets import needs_total_steps
from litlab.data.dataset_info import DatasetInfo
from litlab.data.module import ImageDataModule
from litlab.data.shapes import Shapes
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result
from litlab.training.build import (
    Facts,
    NodeFactory,
    bind_arguments,
    build_callbacks,
    build_data,
    build_loggers,
    build_network,
    build_schedule,
    build_task,
    build_trainer,
)

CHOICES = sorted(
    f"{path.parent.name}={path.stem}"
    for path in packaged_conf().glob("*/*.yaml")
    if not path.is_relative_to(packaged_conf() / "hydra")
)
MUST = {  # what has no default
    "data=image_folder": ["data.root=nowhere"],
    "data=torchvision": ["data.name=MNIST"],
    "data=huggingface": ["data.path=nowhere"],
    "model=torchvision": ["model.name=resnet18"],
    "model=timm": ["model.name=resnet18"],
    "study=ablation": ["study.ablation=[]"],  # as in the jobs of the full recipe
    "study=fast_cpu_parts": ["study.ablation=[]"],
}
OPTIONAL = {"model=timm"}  # needs a package
ADDED_CALLBACKS = {"ema": "EMA", "early_stopping": "EarlyStopping", "model_summary": "ModelSummary"}
NAMES = tuple(f"class {number}" for number in range(10))
INFO = DatasetInfo("none", NAMES, (3, 32, 32), (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), "", "", 80, 20, 20)
FACTS = Facts(INFO)
NEEDS_FILES = (
    "litlab.data.cifar10.CIFAR10", "litlab.data.image_folder.ImageFolder", "litlab.data.torchvision.Torchvision",
    "litlab.data.huggingface.HuggingFace",
)  # fmt: skip


@pytest.mark.parametrize(
    "choice", [pytest.param(choice, marks=[pytest.mark.integrations] * (choice in OPTIONAL)) for choice in CHOICES]
)
def test_each_config_composes_and_can_be_built(choice: str, tmp_path: Path) -> None:
    config = compose_config(choice, *MUST.get(choice, []))
    assert config["format"] == 2
    run = RunDirectory(tmp_path)
    if config["data"]["_target_"] in NEEDS_FILES:
        bind_arguments("data", config["data"])()  # its arguments fit; the files are not here
    else:
        assert isinstance(build_data(config), ImageDataModule)
    network = build_network(config["model"], FACTS)
    task = build_task(config, network, FACTS)
    assert isinstance(task, LightningModule)
    callbacks = {type(callback).__name__ for callback in build_callbacks(config, FACTS)}
    pictures = {"TrainingImages", "WorstMistakes", "ConfusionMatrix", "ClassAccuracy", "ReliabilityDiagram"}
    more = {f"callbacks={name}": cls for name, cls in ADDED_CALLBACKS.items()}
    assert callbacks == pictures | {"TrainingLog"} | ({more[choice]} if choice in more else set())
    targets = [node["_target_"] for node in config["logger"].values()]
    if any(find_spec(OPTIONAL_PACKAGES[target]) is None for target in targets if target in OPTIONAL_PACKAGES):
        with pytest.raises(UserError, match="needs a package that is not installed here"):
            build_loggers(config, run)
    else:
        loggers = [type(logger).__name__ for logger in build_loggers(config, run)]
        assert loggers == [target.rpartition(".")[2] for target in targets]
    if config["trainer"]["accelerator"] == "gpu" and not torch.cuda.is_available():
        return  # its arguments were checked against the Trainer's by name; see tests/config/test_schema.py
    if config["trainer"]["strategy"] == "ddp":
        return  # it would start processes; tests/training/test_run.py trains with it
    trainer = build_trainer(config, run, INFO, devices=1, callbacks=[], loggers=[])
    assert trainer.max_epochs == config["trainer"]["max_epochs"]


def test_callbacks_compose_as_a_list() -> None:
    callbacks = build_callbacks(compose_config(f"callbacks=[{','.join(ADDED_CALLBACKS)}]"), FACTS)
    assert {type(callback).__name__ for callback in callbacks} >= {"TrainingLog", *ADDED_CALLBACKS.values()}
    assert len(callbacks) == len(build_callbacks(compose_config(), FACTS)) + len(ADDED_CALLBACKS)


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice.startswith("study=")])
def test_each_study_is_a_multirun_with_its_sweeper(choice: str) -> None:
    register_resolvers()
    text = (packaged_conf() / f"{choice.replace('=', '/')}.yaml").read_text()
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        composed = GlobalHydra.instance().config_loader().load_configuration(ROOT, [choice], RunMode.RUN)
    hydra = composed.hydra
    assert hydra.mode == RunMode.MULTIRUN
    sweeper = "SearchSweeper" if "override /hydra/sweeper: search" in text else "GridSweeper"
    assert hydra.sweeper["_target_"].endswith(sweeper)
    assert hydra.launcher["backend"] == "pool"
    assert len(hydra.sweeper.params) == (1 if composed.study.ablate else 2)
    assert composed.study.name == choice.partition("=")[2]


@pytest.mark.parametrize("choice", [choice for choice in CHOICES if choice.startswith(("optimizer", "schedule"))])
def test_each_optimizer_and_schedule_steps(choice: str) -> None:
    config = compose_config(choice)
    network = nn.Conv2d(3, 2, 1)
    optimizer = NodeFactory("optimizer", config["optimizer"], "params")(network.parameters())
    arguments = {"total_steps": 20} if needs_total_steps(config["schedule"]) else {}
    schedule = build_schedule(config)(optimizer, **arguments)
    before = network.weight.detach().clone()
    for _ in range(2):
        network(torch.ones(1, 3, 1, 1)).sum().backward()
        optimizer.step()
        schedule.step(*([0.5] if choice == "schedule=plateau" else []))
    assert not torch.equal(network.weight, before)
    assert 0 < schedule.get_last_lr()[0] <= config["optimizer"]["lr"]


def test_every_yaml_begins_with_a_description() -> None:
    for path in packaged_conf().glob("*/*.yaml"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("# @package")]
        assert re.match(r"# \S", lines[0]), path


def tiny_without(*prefixes: str) -> list[str]:
    return [override for override in TINY if not override.startswith(prefixes)]


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore:You requested to overfit but enabled")  # unless it is torch's own sampler
@pytest.mark.filterwarnings("ignore:Total length of `list` across ranks is zero")  # no validation: it overrides limits
def test_debug_overfit_reaches_all_of_its_batch(tmp_path: Path) -> None:
    run = train_here(
        tmp_path / "run",
        *tiny_without("model", "data.batch", "data.val", "trainer.max", "trainer.log"),
        "debug=overfit",
        "trainer.max_epochs=150",
    )
    accuracy = [row.value for row in read_metrics(run.metrics) if row.metric == "train/accuracy"]
    assert accuracy[0] < 0.9
    assert accuracy[-1] == 1.0
    assert read_result(run)["steps"] == 150


def test_overfitting_sees_the_same_batch_in_every_epoch() -> None:
    data = build_data(compose_config(*TINY))
    assert isinstance(data, Shapes)
    assert not torch.equal(*_two_epochs(data, Trainer(accelerator="cpu", **QUIET)))
    assert torch.equal(*_two_epochs(data, Trainer(accelerator="cpu", overfit_batches=1, **QUIET)))


QUIET: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}


def _two_epochs(data: Shapes, trainer: Trainer) -> tuple[Tensor, Tensor]:
    data.trainer = trainer
    loader = data.train_dataloader()
    first = next(iter(loader)).indices
    loader.sampler.set_epoch(1)
    return first, next(iter(loader)).indices


def test_debug_fast_trains_validates_and_tests(tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *tiny_without("trainer.max", "trainer.log"), "debug=fast")
    result = read_result(run)
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 1, 3)
    logged = {row.metric for row in read_metrics(run.metrics)}
    assert logged >= {"train/loss", "val/accuracy", "test/accuracy", "lr"}
    assert run.best.exists()
    assert run.last.exists()


def test_debug_profile_writes_its_table_into_the_run_directory(tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *tiny_without("trainer.max"), "debug=profile")
    tables = {path.name: path.read_text() for path in run.path.glob("*profile*")}
    assert any("run_training_batch" in text for text in tables.values()), list(tables)


class Explodes(nn.Module):
    """Network with a finite forward whose backward computes infinity (of the root at 0) times 0."""

    def __init__(self, *, image_shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(image_shape[0], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.layer(images.mean(dim=(2, 3)))
        return scores + torch.sqrt(scores * 0)


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.filterwarnings("ignore:Error detected in MulBackward0")  # what it is for
def test_debug_anomaly_names_the_operation(tmp_path: Path) -> None:
    settings = [*tiny_without("model"), f"model._target_={__name__}.Explodes", "~model.widths", "~model.hidden"]
    with pytest.raises(RuntimeError, match=r"MulBackward0.*nan"):
        train_here(tmp_path / "run", *settings, "debug=anomaly")
