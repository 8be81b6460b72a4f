"""The loop one would write by hand, run between the epochs of a litlab run, in its process."""

import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from litlab.config.freeze import from_yaml
from litlab.data.module import ImageDataModule
from litlab.experiment import factory
from litlab.optim import decayed_names, parameter_groups
from litlab.runs.directory import RunDirectory

RECORD = "side_by_side.json"


class BareLoop:
    """Network, data path, optimizer and schedule of a run, without anything around them."""

    def __init__(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> None:
        self.network = network.train()
        self.data = data
        self.loader = data.train_dataloader()
        self.optimizer = factory("optimizer", config["optimizer"])(parameter_groups(network, decayed_names(network)))
        total_steps = len(self.loader) * config["trainer"]["max_epochs"]
        self.schedule = factory("schedule", config["schedule"])(self.optimizer, total_steps=total_steps)

    def train(self, epoch: int) -> None:
        """One epoch."""
        self.loader.sampler.set_epoch(epoch)
        for batch in self.loader:
            batch = self.data.finish(batch, epoch=epoch)
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.network(batch.images), batch.labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            self.schedule.step()


class SideBySide(Callback):
    """Before each epoch of litlab, trains an epoch by hand; writes the seconds of both to the run directory.

    litlab's seconds are those from the start of the epoch to its end, with everything that a default run does in it,
    the checkpoints too, but without validation, which the loop by hand does not have. As the last of the callbacks,
    which is where an override adds it, it counts what the others do. One process on a CPU only.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = RunDirectory(Path(trainer.default_root_dir))
        network, data = pl_module.network, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(network, nn.Module)
        self._bare = BareLoop(deepcopy(network), data, from_yaml(run.config.read_text(encoding="utf-8")))
        self._seconds: dict[str, list[float]] = {"bare": [], "litlab": []}
        self._record = run.path / RECORD

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        start = time.perf_counter()
        self._bare.train(trainer.current_epoch)
        self._resumed = time.perf_counter()
        self._seconds["bare"].append(self._resumed - start)
        self._seconds["litlab"].append(0.0)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds["litlab"][-1] += time.perf_counter() - self._resumed

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._resumed = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seconds["litlab"][-1] += time.perf_counter() - self._resumed

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        facts = {"num_steps": len(self._bare.loader), "num_images": len(self._bare.loader.sampler.members)}
        self._record.write_text(json.dumps(self._seconds | facts), encoding="utf-8")
