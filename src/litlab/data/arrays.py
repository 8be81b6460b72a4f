"""Labels and decoded images of both official splits, with the statistics of their pixels."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

_CHUNK_BYTES = 2**18  # of pixels at a time: counting takes eight bytes for each


@dataclass(frozen=True, kw_only=True)
class ImageSplits:
    """Both official splits of a data set, wherever the images are.

    Attributes:
        name: Name of the data set.
        class_names: Names of the classes, by label.
        train_labels: Labels of the training split, shape n_train.
        test_labels: Labels of the test split, shape n_test.
        mean: Mean per channel of the training pixels in 0..1.
        std: Standard deviation per channel of the training pixels in 0..1.
        fingerprint: SHA-256 over pixels and labels of both splits.
    """

    name: str
    class_names: tuple[str, ...]
    train_labels: Int64[Tensor, " n_train"]
    test_labels: Int64[Tensor, " n_test"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ImageArrays(ImageSplits):
    """Both official splits in memory.

    Attributes:
        train_images: Shape n_train c h w.
        test_images: Shape n_test c h w.
    """

    train_images: UInt8[Tensor, "n_train c h w"]
    test_images: UInt8[Tensor, "n_test c h w"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        num_channels, height, width = self.train_images.shape[1:]
        return num_channels, height, width

    @classmethod
    def from_tensors(
        cls, *, name: str, class_names: tuple[str, ...], train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
    ) -> "ImageArrays":
        """Compute the statistics of images that are in memory.

        Args:
            name: Name of the data set.
            class_names: Names of the classes, by label.
            train: Images and labels of the training split.
            test: Images and labels of the test split.
        """
        return cls(
            name=name,
            class_names=class_names,
            train_images=train[0],
            train_labels=train[1],
            test_images=test[0],
            test_labels=test[1],
            **array_statistics(*(tensor.numpy() for tensor in (*train, *test))),
        )


class PixelHistogram:
    """Histogram of the gray levels per channel; gives mean and deviation, exact up to a division."""

    def __init__(self, num_channels: int) -> None:
        self._counts = np.zeros((num_channels, 256), dtype=np.int64)

    def update(self, images: UInt8[np.ndarray, "n c h w"]) -> None:
        """Count the pixels of more images."""
        for chunk in _chunks(images):
            for channel, counts in enumerate(self._counts):
                counts += np.bincount(chunk[:, channel].ravel(), minlength=256)

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return mean and standard deviation per channel, of pixels in 0..1."""
        levels = np.arange(256) / 255
        frequencies = self._counts / self._counts.sum(axis=1, keepdims=True)
        means = frequencies @ levels
        deviations = np.sqrt((frequencies * (levels - means[:, None]) ** 2).sum(axis=1))
        # A channel of one constant gray would divide by zero: count it as varying by one gray level.
        return tuple(means.tolist()), tuple(np.maximum(deviations, 1 / 255).tolist())


class Fingerprint:
    """SHA-256 over types, shapes and contents of arrays, each of which may be added in parts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def start_array(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """Begin the next array; its content follows."""
        self._digest.update(f"{dtype.str}{shape}".encode())

    def update(self, rows: np.ndarray) -> None:
        """Add the next rows of the array."""
        for chunk in _chunks(rows):
            self._digest.update(np.ascontiguousarray(chunk).data)

    def hexdigest(self) -> str:
        """Return the hash in hexadecimal digits."""
        return self._digest.hexdigest()


def array_statistics(
    train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
) -> dict[str, Any]:
    """Compute the fields `mean`, `std` and `fingerprint` of `ImageSplits` from arrays in memory."""
    histogram, digest = PixelHistogram(train_images.shape[1]), Fingerprint()
    histogram.update(train_images)
    for array in (train_images, train_labels, test_images, test_labels):
        digest.start_array(array.dtype, array.shape)
        digest.update(array)
    mean, std = histogram.mean_and_std()
    return {"mean": mean, "std": std, "fingerprint": digest.hexdigest()}


def _chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield slices so small that a pass over the pixels needs no memory to speak of."""
    step = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    return (array[start : start + step] for start in range(0, len(array), step))
