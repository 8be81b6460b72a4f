"""The loop one would write by hand, run between the epochs of a litlab run, in its process."""

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from litlab.data.loader import Batch
from litlab.data.module import ImageDataModule
from litlab.optim.parameter_groups import decayed_names, parameter_groups
from litlab.runs.directory import RunDirectory
from litlab.training.build import bind_arguments, build_schedule

RECORD = "side_by_side.json"


class Contender(Protocol):
    """Something else that trains the same network."""

    def train(self, epoch: int) -> float:
        """Train one epoch and return its seconds."""


def now(device: torch.device) -> float:
    """Return the seconds of a clock after all pending work of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


class BareLoop:
    """Network, data path, optimizer and schedule of a run, without anything around them."""

    def __init__(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> None:
        self.network = network.train()
        self.device = next(network.parameters()).device
        self.data = data
        self.loader = data.train_dataloader()
        self.optimizer = bind_arguments("optimizer", config["optimizer"])(
            parameter_groups(network, decayed_names(network))
        )
        total_steps = len(self.loader) * config["trainer"]["max_epochs"]
        self.schedule = build_schedule(config)(self.optimizer, total_steps=total_steps)

    def train(self, epoch: int) -> float:
        """Train one epoch and return its seconds."""
        start = now(self.device)
        for _ in self.steps(epoch):
            pass
        return now(self.device) - start

    def steps(self, epoch: int) -> Iterator[None]:
        """Train one epoch; yield after each step."""
        self.loader.sampler.set_epoch(epoch)
        for batch in self.loader:
            self.optimizer.zero_grad()
            self.loss(batch, epoch).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()
            yield

    def loss(self, batch: Batch, epoch: int) -> Tensor:
        """Mean over the batch, as it comes from the loader."""
        batch = self.data.transform_batch(batch, epoch=epoch)
        return F.cross_entropy(self.network(batch.images), batch.labels)


class SideBySide(Callback):
    """Before each epoch of litlab, trains an epoch by hand; writes the seconds of both to the run directory.

    litlab's seconds are those from the start of the epoch to its end, with everything that a default run does in it,
    the checkpoints too, but without validation, which the loop by hand does not have. As the last of the callbacks,
    which is where an override adds it, it counts what the others do. One process only.
    """

    def contenders(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> dict[str, Contender]:
        """Return the contenders by their names in the record; each has its own network."""
        return {"bare": BareLoop(deepcopy(network), data, config)}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = RunDirectory(Path(trainer.default_root_dir))
        network, data = pl_module.network, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(network, nn.Module)
        self._contenders = self.contenders(network, data, run.read_config())
        self._seconds: dict[str, list[float]] = {"litlab": [], **{name: [] for name in self._contenders}}
        self._device = trainer.strategy.root_device
        self._record = run.path / RECORD

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for name, contender in self._contenders.items():
            self._seconds[name].append(contender.train(trainer.current_epoch))
        self._seconds["litlab"].append(0.0)
        self._resumed = now(self._device)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds["litlab"][-1] += now(self._device) - self._resumed

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed = now(self._device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds["litlab"][-1] += now(self._device) - self._resumed

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        facts = {"num_steps": trainer.num_training_batches, "num_images": len(data.train_indices)}
        self._record.write_text(json.dumps(self._seconds | facts), encoding="utf-8")
