"""What is known of a data set's content, the arrays of one that is decoded, and what is computed from the pixels."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

_CHUNK_BYTES = 2**18  # of pixels at a time: counting takes eight bytes for each


@dataclass(frozen=True, kw_only=True)
class ImageContent:
    """Both official splits, wherever the images are, with what was computed when they were decoded."""

    name: str
    class_names: tuple[str, ...]
    train_labels: Int64[Tensor, " n_train"]
    test_labels: Int64[Tensor, " n_test"]
    mean: tuple[float, ...]  # per channel, of the training pixels in 0..1
    std: tuple[float, ...]
    fingerprint: str

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ImageArrays(ImageContent):
    """Both official splits in memory."""

    train_images: UInt8[Tensor, "n_train c h w"]
    test_images: UInt8[Tensor, "n_test c h w"]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        num_channels, height, width = self.train_images.shape[1:]
        return num_channels, height, width


class PixelCounts:
    """How often each grey level comes in each channel: mean and deviation follow from it, exact up to a division."""

    def __init__(self, num_channels: int) -> None:
        self._counts = np.zeros((num_channels, 256), dtype=np.int64)

    def add(self, images: UInt8[np.ndarray, "n c h w"]) -> None:
        """Count the pixels of some more images."""
        for start, end in _chunks(images):
            for channel, counts in enumerate(self._counts):
                counts += np.bincount(images[start:end, channel].ravel(), minlength=256)

    def mean_and_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel, of pixels in 0..1."""
        levels = np.arange(256) / 255
        shares = self._counts / self._counts.sum(axis=1, keepdims=True)
        means = shares @ levels
        deviations = np.sqrt((shares * (levels - means[:, None]) ** 2).sum(axis=1))
        # A channel of one constant grey would divide by zero: count it as varying by one grey level.
        return tuple(means.tolist()), tuple(np.maximum(deviations, 1 / 255).tolist())


class Fingerprint:
    """SHA-256 over types, shapes and contents of arrays, each of which may come in parts."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def begin(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        """The next array; its content follows."""
        self._digest.update(f"{dtype.str}{shape}".encode())

    def add(self, part: np.ndarray) -> None:
        """Its next rows."""
        for start, end in _chunks(part):
            self._digest.update(np.ascontiguousarray(part[start:end]).data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _chunks(array: np.ndarray) -> list[tuple[int, int]]:
    """First and last rows of parts that are small, so that no pass over the pixels needs memory of its own."""
    step = max(1, _CHUNK_BYTES * len(array) // max(1, array.nbytes))
    return [(start, start + step) for start in range(0, len(array), step)]


def pixel_statistics(images: UInt8[np.ndarray, "n c h w"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of pixels in 0..1."""
    counts = PixelCounts(images.shape[1])
    counts.add(images)
    return counts.mean_and_std()


def fingerprint(*arrays: np.ndarray) -> str:
    """That of arrays that are in memory."""
    digest = Fingerprint()
    for array in arrays:
        digest.begin(array.dtype, array.shape)
        digest.add(array)
    return digest.hexdigest()


def image_arrays(
    *,
    name: str,
    class_names: tuple[str, ...],
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
) -> ImageArrays:
    """From (images, labels) of both splits that are in memory; computes statistics and fingerprint."""
    mean, std = pixel_statistics(train[0].numpy())
    return ImageArrays(
        name=name,
        class_names=class_names,
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        mean=mean,
        std=std,
        fingerprint=fingerprint(*(part.numpy() for part in (*train, *test))),
    )
