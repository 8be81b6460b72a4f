"""Images that stay in their files: litlab's `storage=stream` against torchvision's ImageFolder, both with workers."""

from functools import partial
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]

from benchmarks import jpegs
from benchmarks.data_path import Epochs, exhaust, prepared, threads, transform, usual_loader
from benchmarks.harness import Row, speed_row, temporary_folder
from benchmarks.settings import Settings
from litlab.data.module import ImageDataModule


def rows(settings: Settings) -> list[Row]:
    """Measure an epoch of batches that are read, decoded, augmented and normalized, without training."""
    batch_size, num_workers = settings.batch_sizes[0], settings.num_workers
    with temporary_folder() as folder, threads(max(settings.threads)):
        root = jpegs.in_folder(settings, folder / "jpegs")
        data = prepared(*overrides(root, folder / "cache", batch_size, num_workers))
        return [
            speed_row(
                f"data path, batch {batch_size}, storage=stream",
                data.info.num_train,
                partial(exhaust, Epochs(data)),
                f"torchvision's ImageFolder, DataLoader with {num_workers} workers",
                partial(exhaust, usual(data, root, batch_size, num_workers)),
                settings.num_rounds,
            )
        ]


def usual(data: ImageDataModule, root: Path, batch_size: int, num_workers: int) -> "DataLoader[Any]":
    """Load the same training images by torchvision."""
    return usual_loader(ImageFolder(root / "train", transform(data)), batch_size, num_workers)


def overrides(root: Path, cache: Path, batch_size: int, num_workers: int) -> tuple[str, ...]:
    """Return the overrides that stream all images of the training split."""
    return (
        "data=image_folder", f"data.root='{root}'", f"data.cache='{cache}'", "data.val_size=0",
        "data.storage=stream", f"data.num_workers={num_workers}", f"data.batch_size={batch_size}",
    )  # fmt: skip
