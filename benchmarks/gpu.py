"""The rows of a machine with a GPU; here the data path, and litlab's switches against a fast loop by hand."""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from benchmarks.bare import BareLoop, Contender, SideBySide, now
from benchmarks.data_path import Epochs, PILImages, exhaust, prepared, usual_loader
from benchmarks.harness import Row, speed_row
from benchmarks.runs import in_worker
from benchmarks.settings import Settings
from benchmarks.training import epochs_of, throughput_row
from litlab.data.loader import Batch
from litlab.data.module import ImageDataModule

BATCH_SIZE = 512
_BESIDE = "+callbacks.side_by_side._target_=benchmarks.gpu.BesideFastLoop"
_LOOP = "a loop by hand, bf16, channels_last"
# Each has one switch more than the one before.
SWITCHES = {
    "32-true": (),
    "bf16-mixed": ("trainer.precision=bf16-mixed",),
    "bf16-mixed, channels_last": ("trainer.precision=bf16-mixed", "task.channels_last=true"),
    "bf16-mixed, channels_last, compile": (
        "trainer.precision=bf16-mixed", "task.channels_last=true", "task.compile=true",
    ),
    "bf16-mixed, channels_last, compile, DDP": (
        "trainer.precision=bf16-mixed", "task.channels_last=true", "task.compile=true", "trainer.strategy=ddp",
    ),
}  # fmt: skip


class FastLoop(BareLoop):
    """Fast loop by hand: bfloat16 by autocast, weights and images in channels_last."""

    def __init__(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> None:
        super().__init__(network.to(memory_format=torch.channels_last), data, config)  # type: ignore[call-overload]

    def loss(self, batch: Batch, epoch: int) -> Tensor:
        batch = self.data.transfer_batch_to_device(batch, self.device, 0)
        batch = self.data.transform_batch(batch, epoch=epoch)
        images = batch.images.to(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            return F.cross_entropy(self.network(images), batch.labels)


class BesideFastLoop(SideBySide):
    """Side-by-side training with `FastLoop`, whose copy of the network is never compiled."""

    def contenders(self, network: nn.Module, data: ImageDataModule, config: dict[str, Any]) -> dict[str, Contender]:
        return {"bare": FastLoop(deepcopy(network), data, config)}


def data_rows(settings: Settings, accelerator: str = "gpu") -> list[Row]:
    """Measure an epoch of batches on the device, augmented and normalized, without training."""
    data = prepared(*settings.data, f"data.batch_size={BATCH_SIZE}")
    batches = usual_loader(PILImages(data), BATCH_SIZE, settings.num_workers)
    data.trainer = Trainer(accelerator=accelerator, devices=1, logger=False, enable_checkpointing=False)
    data.trainer.strategy.connect(LightningModule())  # which has the type that images are to have
    device = data.trainer.strategy.root_device
    epochs = Epochs(data, device)

    def litlab() -> None:
        exhaust(epochs)
        now(device)

    def usual() -> None:
        for images, labels in batches:
            images.to(device), labels.to(device)
        now(device)

    against = f"torchvision, PIL, DataLoader with {settings.num_workers} workers, moved"
    name, num_images = f"GPU: data path, batch {BATCH_SIZE}", len(data.train_indices)
    return [speed_row(name, num_images, litlab, against, usual, settings.num_rounds)]


def training_rows(settings: Settings) -> list[Row]:
    """ResNet-18 with each of the switches, always against the same loop."""
    common = ("trainer=gpu", "model=resnet18", _BESIDE, *settings.data, f"data.batch_size={BATCH_SIZE}")
    return [
        throughput_row(f"GPU: resnet18, {name}", epochs_of(settings, in_worker, *common, *overrides), against=_LOOP)
        for name, overrides in SWITCHES.items()
    ]
