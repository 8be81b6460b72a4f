"""The usual set-up that multiruns are held against: `@hydra.main` and Lightning, as one writes them without litlab.

`python -m benchmarks.usual -m lr=0.02,0.05 seed=0,1 data=FOLDER`: Hydra's own launcher, all jobs in one process. Data
in memory, batches gathered at once, augmentation of whole batches: what somebody who cares about speed would write.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import torch
import torch.nn.functional as F
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import MISSING
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.in_memory import Split, augmented, load, statistics
from litlab.models.cnn import CNN


@dataclass
class Config:
    data: str = MISSING
    lr: float = 0.05
    seed: int = 0
    batch_size: int = 128
    epochs: int = 2
    threads: int = 2


class Images(LightningDataModule):
    def __init__(self, folder: Path, batch_size: int) -> None:
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        self.splits = {name: load(self.folder, name) for name in ("train", "val", "test")}
        self.mean, self.std = statistics(self.folder)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test", shuffle=False)

    def on_after_batch_transfer(self, batch: Split, dataloader_idx: int) -> Split:
        images, labels = batch
        if self.trainer is not None and self.trainer.training:
            images = augmented(images)
        return (images.float() - self.mean) / self.std, labels

    def _loader(self, split: str, *, shuffle: bool) -> DataLoader[Any]:
        dataset = TensorDataset(*self.splits[split])
        order = RandomSampler(dataset) if shuffle else SequentialSampler(dataset)
        return DataLoader(dataset, sampler=BatchSampler(order, self.batch_size, drop_last=False), batch_size=None)


class Classifier(LightningModule):
    def __init__(self, network: nn.Module, lr: float) -> None:
        super().__init__()
        self.network = network
        self.lr = lr
        self.train_accuracy, self.val_accuracy, self.test_accuracy = (MulticlassAccuracy(10) for _ in range(3))

    def training_step(self, batch: Split, batch_idx: int) -> Tensor:
        return self._step(batch, "train", self.train_accuracy)

    def validation_step(self, batch: Split, batch_idx: int) -> None:
        self._step(batch, "val", self.val_accuracy)

    def test_step(self, batch: Split, batch_idx: int) -> None:
        self._step(batch, "test", self.test_accuracy)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), self.lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        total_steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.lr, total_steps=total_steps, pct_start=0.25, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _step(self, batch: Split, split: str, accuracy: Metric) -> Tensor:
        images, labels = batch
        logits = self.network(images)
        loss = F.cross_entropy(logits, labels)
        accuracy(logits, labels)
        self._log(split, loss, accuracy, len(labels))
        return loss

    def _log(self, split: str, loss: Tensor, accuracy: Metric, num_images: int) -> None:
        self.log_dict({f"{split}/loss": loss, f"{split}/accuracy": accuracy}, batch_size=num_images)


def train(config: Config, folder: Path) -> float:
    """Train, then test the best checkpoint. Returns the last validation accuracy, for a sweeper."""
    torch.set_num_threads(config.threads)
    seed_everything(config.seed)
    data = Images(Path(config.data), config.batch_size)
    network = CNN(num_classes=10, image_shape=(3, 32, 32), widths=(6, 16), hidden=(120, 84))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=config.epochs,
        default_root_dir=folder,
        callbacks=[ModelCheckpoint(monitor="val/accuracy", mode="max")],
    )
    trainer.fit(Classifier(network, config.lr), data)
    reached = float(trainer.callback_metrics["val/accuracy"])
    trainer.test(datamodule=data, ckpt_path="best", weights_only=True)
    return reached


ConfigStore.instance().store("usual", Config)


@hydra.main(version_base="1.3", config_path=None, config_name="usual")
def main(config: Config) -> float:
    return train(config, Path(HydraConfig.get().runtime.output_dir))


if __name__ == "__main__":
    main()
