"""The images of a benchmark as plain arrays in memory, for programs that know nothing of litlab's data modules."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from litlab.data.augment import shift_and_flip

if TYPE_CHECKING:
    from litlab.data.module import ImageDataModule  # which imports lightning

Split = tuple[Tensor, Tensor]  # uint8 n c h w, int64 n
CROP_PADDING = 4


def save(data: "ImageDataModule", folder: Path, *, num_val: int) -> None:
    """Write the images that litlab would train, validate (the first so many) and test on."""
    arrays, val = data.arrays, data.val_indices[:num_val]
    splits = {
        "train": (arrays.train_images[data.train_indices], arrays.train_labels[data.train_indices]),
        "val": (arrays.train_images[val], arrays.train_labels[val]),
        "test": (arrays.test_images, arrays.test_labels),
    }
    for name, (images, labels) in splits.items():
        np.save(folder / f"{name}_images.npy", images.numpy())
        np.save(folder / f"{name}_labels.npy", labels.numpy())
    statistics = np.array([data.info.mean, data.info.std], dtype=np.float32) * 255
    np.save(folder / "statistics.npy", statistics)


def load(folder: Path, split: str) -> Split:
    images, labels = (torch.from_numpy(np.load(folder / f"{split}_{part}.npy")) for part in ("images", "labels"))
    return images, labels


def statistics(folder: Path) -> tuple[Tensor, Tensor]:
    """Mean and deviation of pixels in 0..255, each c 1 1."""
    mean, std = torch.from_numpy(np.load(folder / "statistics.npy"))[:, :, None, None]
    return mean, std


def augmented(images: Tensor) -> Tensor:
    """Crop and flip a whole batch by litlab's functions with torch's random numbers."""
    shifts = torch.randint(-CROP_PADDING, CROP_PADDING + 1, (2, len(images)))
    return shift_and_flip(images, shifts[0], shifts[1], torch.rand(len(images)) < 0.5)
