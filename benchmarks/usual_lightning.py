"""Run of the usual Lightning set-up, as in its tutorials.

Workers of a DataLoader turn one image after the other into a PIL image and transform it; `self.log` at each step.

`python -m benchmarks.usual_lightning FOLDER EPOCHS BATCH_SIZE`: images as `benchmarks.in_memory` stores them. The
last line of output is a JSON object with the accuracy and the seconds of training, without validation.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchvision import transforms  # type: ignore[import-untyped]

from benchmarks.in_memory import CROP_PADDING, statistics
from benchmarks.tutorial import Images
from benchmarks.usual import Classifier
from litlab.callbacks.training_log import Timing
from litlab.models.cnn import CNN

NUM_WORKERS, RATE = 2, 0.05


class ImagesByWorkers(LightningDataModule):
    """litlab's crop and flip by torchvision's transforms, in workers."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        super().__init__()
        self.folder = folder
        self.batch_size = batch_size
        mean, std = (values.flatten() / 255 for values in statistics(folder))
        self.plain = [transforms.ToTensor(), transforms.Normalize(mean.tolist(), std.tolist())]
        self.augmentation = [
            transforms.RandomCrop(32, padding=CROP_PADDING, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
        ]

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", [*self.augmentation, *self.plain])

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val", self.plain)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test", self.plain)

    def _loader(self, split: str, steps: list[Any]) -> DataLoader[Any]:
        images = Images(self.folder, split)
        images.transform = transforms.Compose(steps)
        return DataLoader(images, batch_size=self.batch_size, shuffle=split == "train", num_workers=NUM_WORKERS)


class LoggingClassifier(Classifier):
    """Logs each step, and shows it in the bar."""

    def _log(self, split: str, loss: Tensor, accuracy: Metric, num_images: int) -> None:
        self.log(f"{split}/loss", loss, on_step=split == "train", on_epoch=True, prog_bar=True)
        self.log(f"{split}/accuracy", accuracy, on_step=split == "train", on_epoch=True, prog_bar=True)


def main(folder: Path, epochs: int, batch_size: int, runs: Path) -> dict[str, float]:
    """Train, then test the best checkpoint."""
    seed_everything(0)
    network = CNN(num_classes=10, image_shape=(3, 32, 32), widths=(6, 16), hidden=(120, 84))
    data, timing = ImagesByWorkers(folder, batch_size), Timing()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        default_root_dir=runs,
        logger=TensorBoardLogger(runs),
        callbacks=[ModelCheckpoint(monitor="val/accuracy", mode="max"), timing],
    )
    trainer.fit(LoggingClassifier(network, RATE), data)
    (tested,) = trainer.test(datamodule=data, ckpt_path="best", weights_only=True)
    return {"accuracy": tested["test/accuracy"], "training": timing.clock.seconds}


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        outcome = main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(folder))
    print("\n" + json.dumps(outcome))
