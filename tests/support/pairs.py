"""Data modules of a user's own that yield pairs of images and labels, and import nothing of litlab."""

from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

CLASSES = ("ant", "bee", "cow", "dog")
SHAPE = (3, 12, 12)
SIZES = {"train": 44, "val": 21, "test": 13}  # images; the last batch of each is smaller


def tensors(split: str) -> tuple[Tensor, Tensor]:
    """Return images that look a little like their classes, and labels."""
    generator = torch.Generator().manual_seed(list(SIZES).index(split))
    labels = torch.randint(0, len(CLASSES), (SIZES[split],), generator=generator)
    images = torch.randn(len(labels), *SHAPE, generator=generator) + labels[:, None, None, None] / 2
    return images, labels


class Pairs(LightningDataModule):
    """Loaders alone: nothing tells the number of classes.

    Args:
        batch_size: Images of a batch, on each device.
        shuffle: Whether training images are shuffled.
    """

    def __init__(self, batch_size: int = 8, shuffle: bool = True) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._shuffle = shuffle

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*tensors("train")), batch_size=self._batch_size, shuffle=self._shuffle)

    def val_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*tensors("val")), batch_size=8)

    def test_dataloader(self) -> Any:
        return DataLoader(TensorDataset(*tensors("test")), batch_size=8)


class Described(Pairs):
    """The same with attributes that tell what constructors of networks and callbacks take."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.class_names = list(CLASSES)
        self.image_shape = torch.Size(SHAPE)
        self.mean, self.std = torch.full((3,), 0.75), [1.0, 1.0, 1.0]


class Miscounted(Described):
    """Tells fewer names or counts than there are classes."""

    def __init__(self, **facts: Any) -> None:
        super().__init__()
        vars(self).update(facts)


class Hooked(Described):
    """The same with a hook that expects its own pairs."""

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        images, labels = batch
        return images * 1, labels


class Uneven(Described):
    """Batches of five images on the first of two ranks and of three on the second; of eight on a single one."""

    def train_dataloader(self) -> Any:
        images, labels = tensors("train")
        assert self.trainer is not None
        part = {(0, 1): slice(0, 8), (0, 2): slice(0, 5), (1, 2): slice(5, 8)}
        chosen = part[self.trainer.global_rank, self.trainer.world_size]
        rows = [list(range(start, start + 8))[chosen] for start in range(0, 40, 8)]
        return DataLoader(TensorDataset(images, labels), batch_sampler=rows)


class Late(Pairs):
    """Knows its classes only after `setup`."""

    classes: Any = None

    @property
    def num_classes(self) -> int:
        return len(self.classes)


class Odd(Described):
    """Batches that are no pairs of float images and class numbers, or contradict `image_shape`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind

    def train_dataloader(self) -> Any:
        images, labels = tensors("train")
        rows = {
            "dict": [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)],
            "tensor": list(images),
            "three": [(image, label, label) for image, label in zip(images, labels, strict=True)],
            "uint8": list(zip(images.byte(), labels, strict=True)),
            "one-hot": list(zip(images, torch.eye(len(CLASSES))[labels], strict=True)),
            "gray": list(zip(images[:, :1], labels, strict=True)),
            "float": list(zip(images, labels.float(), strict=True)),
            "from one": list(zip(images, labels + 1, strict=True)),
        }
        return DataLoader(rows[self._kind], batch_size=8)  # type: ignore[arg-type]  # a list is a data set
