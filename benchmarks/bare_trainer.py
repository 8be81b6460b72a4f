"""Lightning's Trainer with nothing on, beside the loop by hand: what Lightning itself costs a step."""

from copy import deepcopy
from typing import Any

import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn

from benchmarks.bare import Contender, now
from benchmarks.step_by_step import StepByStep
from litlab.data.loader import Batch, BatchLoader
from litlab.data.module import ImageDataModule
from litlab.optim.parameter_groups import decayed_names, parameter_groups
from litlab.training.build import bind_arguments, build_schedule


class Plain(LightningModule):
    """The smallest module around a network; nothing is logged.

    Attributes:
        seconds: of the last epoch.
    """

    seconds: float

    def __init__(self, network: nn.Module, config: dict[str, Any], total_steps: int) -> None:
        super().__init__()
        self.network = network
        self._config = config
        self._total_steps = total_steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return F.cross_entropy(self.network(batch.images), batch.labels)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, decayed_names(self.network))
        optimizer = bind_arguments("optimizer", self._config["optimizer"])(groups)
        schedule = build_schedule(self._config)(optimizer, total_steps=self._total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        self._start = now(self.device)

    def on_train_epoch_end(self) -> None:
        self.seconds = now(self.device) - self._start


class TrainingImages(LightningDataModule):
    """The training batches of another data module."""

    def __init__(self, data: ImageDataModule) -> None:
        super().__init__()
        self.data = data
        self.epoch = 0

    def train_dataloader(self) -> BatchLoader:
        loader = self.data.train_dataloader()
        loader.sampler.set_epoch(self.epoch)
        return loader

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return self.data.transform_batch(batch, epoch=self.epoch)


class BareTrainer:
    """A Trainer for each epoch, without logger, callback, bar and checkpoint. Optimizer and schedule start anew."""

    def __init__(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> None:
        self.images = TrainingImages(data)
        total_steps = len(data.train_dataloader()) * config["trainer"]["max_epochs"]
        self.module = Plain(network, config, total_steps)

    def train(self, epoch: int) -> float:
        """Train one epoch and return its seconds, without the Trainer's work before and after it."""
        self.images.epoch = epoch
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]  # litlab's stay
        trainer.fit(self.module, datamodule=self.images)
        return self.module.seconds


class BesideBareTrainer(StepByStep):
    """Add an epoch of the bare Trainer before each epoch of litlab. On a CPU only."""

    def contenders(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> dict[str, Contender]:
        return super().contenders(network, data, config) | {"trainer": BareTrainer(deepcopy(network), data, config)}
