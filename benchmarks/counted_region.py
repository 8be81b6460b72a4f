"""Seconds of a run of litlab in the region that the public scripts count."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from benchmarks.bare import now
from litlab.data.loader import Batch
from litlab.data.module import ImageDataModule
from litlab.runs.directory import RunDirectory
from litlab.training.build import MAX_INIT_IMAGES, DataDependentInit

RECORD = "counted_region.json"


class CountedRegion(Callback):
    """Write the seconds of the parts of a run to the run directory.

    - `whitening`: initialization of the network from training images, repeated on a copy of it.
    - `training`: from the first batch to the last step, with everything that a default run does meanwhile: metrics,
      rows of the loggers, pictures, checkpoints between epochs. Without validation; it expects none.
    - `test`: the test images with all their views; without the pictures and tables that follow.
    - `compilation`: a forward and backward pass before the training, which compiles the network and chooses kernels.
      The public scripts do that in a run of its own, so it is not counted. It leaves no trace in the run.

    As the last of the callbacks, which is where an override adds it, it counts what the others do.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._seconds: dict[str, float] = {}
        network, data = deepcopy(pl_module.network), trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, ImageDataModule)
        data.trainer = None  # as when the network is initialized: the images are prepared on the CPU
        with self._timed("whitening", torch.device("cpu")):
            if isinstance(network, DataDependentInit):
                network.initialize_from(data.example_images(MAX_INIT_IMAGES))
        data.trainer = trainer

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        with self._timed("compilation", device), isolate_rng():
            _train_in_vain(trainer, pl_module)
        self._began = now(device)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds["training"] = now(trainer.strategy.root_device) - self._began

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = now(trainer.strategy.root_device)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: int
    ) -> None:
        if batch_idx + 1 == trainer.num_test_batches[0]:
            self._seconds["test"] = now(trainer.strategy.root_device) - self._began

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (Path(trainer.default_root_dir) / RECORD).write_text(json.dumps(self._seconds), encoding="utf-8")

    @contextmanager
    def _timed(self, part: str, device: torch.device) -> Iterator[None]:
        began = now(device)
        yield
        self._seconds[part] = now(device) - began


def _train_in_vain(trainer: Trainer, task: LightningModule) -> None:
    """Pass a batch forward and backward, also with the parameters that are frozen later; restore what that changes."""
    network = task.network
    assert isinstance(network, nn.Module)
    batch = _first_batch(trainer)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _pass(trainer, task, batch)
    if frozen_later := _parameters_frozen_later(trainer, network):
        for parameter in frozen_later:
            parameter.requires_grad_(False)
        _pass(trainer, task, batch)
        for parameter in frozen_later:
            parameter.requires_grad_(True)
    network.load_state_dict(before)
    network.zero_grad()


def _pass(trainer: Trainer, task: LightningModule, batch: Batch) -> None:
    with torch.enable_grad():
        with trainer.precision_plugin.forward_context():
            loss = task(batch.images).float().sum()
        loss.backward()


def _first_batch(trainer: Trainer) -> Batch:
    data, device = trainer.datamodule, trainer.strategy.root_device  # type: ignore[attr-defined]
    assert isinstance(data, ImageDataModule)
    batch = next(iter(trainer.train_dataloader))  # type: ignore[arg-type]
    return data.transform_batch(data.transfer_batch_to_device(batch, device, 0), epoch=0)


def _parameters_frozen_later(trainer: Trainer, network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are trained now and frozen after some epochs, for which the network is compiled again.

    The scripts compile both variants in their warm-up, too.
    """
    task = RunDirectory(Path(trainer.default_root_dir)).read_config()["task"]
    return [
        parameter
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and any(re.match(pattern, name) for pattern in task["freeze"])
    ]
