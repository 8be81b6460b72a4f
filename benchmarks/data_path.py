"""Images per second through the data path: litlab's against torchvision with PIL and a DataLoader."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms  # type: ignore[import-untyped]

from benchmarks.harness import Row, speed_row
from benchmarks.runs import compose_config
from benchmarks.settings import Settings
from litlab.data.module import ImageDataModule
from litlab.training.build import build_data

CPU = torch.device("cpu")
_V2 = "torchvision.transforms.v2"


class PILImages(Dataset[tuple[Tensor, int]]):
    """Training images the usual way: one at a time, as a PIL image, through torchvision's transforms."""

    def __init__(self, data: ImageDataModule) -> None:
        rows = data.train_indices
        self.pixels = data.arrays.train_images[rows].permute(0, 2, 3, 1).contiguous().numpy()  # n h w c
        self.labels = data.arrays.train_labels[rows].tolist()
        self.transform = transform(data)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image: np.ndarray = self.pixels[index]
        return self.transform(Image.fromarray(image)), self.labels[index]


def transform(data: ImageDataModule) -> transforms.Compose:
    """Build torchvision's crop, flip and normalization with litlab's defaults."""
    height, width = data.info.image_shape[1:]
    return transforms.Compose(
        [
            transforms.RandomCrop((height, width), padding=data.augment.crop_padding, padding_mode="reflect"),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(data.info.mean, data.info.std),
        ]
    )


def rows(settings: Settings) -> list[Row]:
    """Measure an epoch of augmented, normalized batches without training, one row for each batch size."""
    measured = []
    with threads(max(settings.threads)):
        for batch_size in settings.batch_sizes:
            data = prepared(*settings.data, f"data.batch_size={batch_size}")
            usual = usual_loader(PILImages(data), batch_size, settings.num_workers)
            measured.append(
                speed_row(
                    f"data path, batch {batch_size}",
                    len(data.train_indices),
                    partial(exhaust, Epochs(data)),
                    f"torchvision, PIL, DataLoader with {settings.num_workers} workers",
                    partial(exhaust, usual),
                    settings.num_rounds,
                )
            )
        measured.append(_transforms_row(settings, settings.batch_sizes[0]))
    return measured


def _transforms_row(settings: Settings, batch_size: int) -> Row:
    """Measure the same crop and flip as transforms of single images, `data.transforms.train`."""
    usual, num_workers = prepared(*settings.data), settings.num_workers
    crop = f"{{_target_: {_V2}.RandomCrop, size: {usual.info.image_shape[1]}, padding: 4, padding_mode: reflect}}"
    own = (
        f"data.transforms.train=[{crop}, {{_target_: {_V2}.RandomHorizontalFlip}}]",
        "data.crop_padding=0", "data.flip=false", f"data.num_workers={num_workers}", f"data.batch_size={batch_size}",
    )  # fmt: skip
    data = prepared(*settings.data, *own)
    return speed_row(
        f"data path, batch {batch_size}, data.transforms",
        len(data.train_indices),
        partial(exhaust, Epochs(data)),
        f"torchvision, PIL, DataLoader with {num_workers} workers",
        partial(exhaust, usual_loader(PILImages(usual), batch_size, num_workers)),
        settings.num_rounds,
    )


def prepared(*overrides: str) -> ImageDataModule:
    """Build a data module and decode its images."""
    data = build_data(compose_config(*overrides))
    assert isinstance(data, ImageDataModule)
    return data


class Epochs:
    """Iterable over litlab's finished training batches; each iteration is the next epoch."""

    def __init__(self, data: ImageDataModule, device: torch.device = CPU) -> None:
        self.data = data
        self.device = device
        self.loader = data.train_dataloader()
        self.epoch = -1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.epoch += 1
        self.loader.sampler.set_epoch(self.epoch)
        for batch in self.loader:
            batch = self.data.transfer_batch_to_device(batch, self.device, 0)
            finished = self.data.transform_batch(batch, epoch=self.epoch)
            yield finished.images, finished.labels


def usual_loader(images: Dataset[tuple[Tensor, int]], batch_size: int, num_workers: int) -> "DataLoader[Any]":
    """Workers that live on: after the warm-up, starting them is not charged."""
    return DataLoader(
        images, batch_size=batch_size, shuffle=True, num_workers=num_workers, persistent_workers=num_workers > 0
    )


def exhaust(batches: "Epochs | DataLoader[Any]") -> None:
    """Iterate over all batches of an epoch."""
    for _ in batches:
        pass


@contextmanager
def threads(num_threads: int) -> Iterator[None]:
    """Set the number of torch's threads in this process within the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
