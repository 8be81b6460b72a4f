"""Helpers of the tests: tiny real runs, composed and trained as `litlab train` does it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Callback
from omegaconf import DictConfig, open_dict
from support.warm import run_warm
from torch import nn

from litlab.config.compose import Composer, record_swept_overrides, register_resolvers
from litlab.config.config_file import to_yaml
from litlab.config.freeze import freeze
from litlab.config.paths import ROOT, VERSION_BASE, packaged_conf, project_conf
from litlab.runs.directory import RunDirectory
from litlab.runs.initial_weights import keep_weights
from litlab.runs.result import read_result
from litlab.runs.signature import signature_problem

# Everything real, everything small: a run of half a second.
TINY_WITH_PICTURES = (
    "data=shapes", "data.num_train=200", "data.num_test=53", "data.val_size=40", "data.batch_size=16",
    "model.widths=[2,4]", "model.hidden=[8]",
    "trainer=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "threads=1",
)  # fmt: skip
NO_PICTURES = (  # which take longer than all else of a tiny run
    "callbacks.confusion_matrix=null", "callbacks.class_accuracy=null", "callbacks.reliability_diagram=null",
    "callbacks.training_images=null", "callbacks.worst_mistakes=null",
)  # fmt: skip
TINY = (*TINY_WITH_PICTURES, *NO_PICTURES)

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def compose_config(*overrides: str) -> dict[str, Any]:
    """Compose and freeze the config of a single run as a job of a multirun: the same in a fraction of the time."""
    return _freeze(_composer(project_conf(Path.cwd())).compose(overrides))


@cache
def _composer(_: Path | None) -> Composer:
    """Return what reads each config once, for a project with such a folder of configs."""
    register_resolvers()
    with initialize_config_dir(str(packaged_conf()), version_base=VERSION_BASE):
        loader = GlobalHydra.instance().config_loader()
        return Composer(loader, loader.load_configuration(ROOT, [], RunMode.MULTIRUN))


def _freeze(composed: DictConfig) -> dict[str, Any]:
    HydraConfig.instance().set_config(composed)
    with open_dict(composed):
        del composed["hydra"]
    return freeze(composed)


def compose_master(loader: ConfigLoader, *arguments: str) -> DictConfig:
    """Compose the config of a multirun, as Hydra passes it to a launcher."""
    master = loader.load_configuration(ROOT, list(arguments), RunMode.MULTIRUN)
    record_swept_overrides(master)
    return master


def train_here(directory: Path, *overrides: str) -> RunDirectory:
    """Train a whole run in this process, as the worker does it."""
    from litlab.process.signals import StopRequest
    from litlab.training.run import train

    config = compose_config(*overrides)
    run = RunDirectory.create(directory, to_yaml(config), {})
    keep_weights(run, config)
    train(run, config, StopRequest(), started=time.perf_counter())
    assert read_result(run)["status"] == "completed"
    return run


def call_litlab(
    project: Path, *arguments: str, timeout: float = 200, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Call the command line in a user's project folder, in a process that has imported everything already."""
    return run_warm(["litlab", *arguments], project, timeout=timeout, environment=os.environ | variables)


def call_cold(project: Path, *arguments: str, timeout: float = 200) -> "subprocess.CompletedProcess[str]":
    """Call the command line in a new interpreter, whose workers are new ones, too: seconds longer."""
    command = [sys.executable, "-m", "litlab", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=timeout)


def is_own(run: RunDirectory) -> bool:
    return signature_problem(run, run.config.read_bytes()) is None


class Dropping(nn.Sequential):
    """A network of a user's own with what a checkpoint must not forget: batch norm's buffers, dropout's numbers."""

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        c, h, w = image_shape
        first = nn.Sequential(nn.Conv2d(c, 4, 3, stride=4), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3))
        size = first.eval()(torch.zeros(1, c, h, w)).shape[1]
        super().__init__(first.train(), nn.Linear(size, num_classes))


class KeepsToken(Callback):
    """A callback of a user's own that needs a secret."""

    seen = ""

    def __init__(self, *, token: str) -> None:
        type(self).seen = token
