"""A decoded data set, and what is computed from its pixels."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8
from torch import Tensor

_CHUNK = 4096  # images at a time, so that no pass over the pixels needs memory of its own


@dataclass(frozen=True)
class ImageArrays:
    """Both official splits as arrays, with what was computed when they were decoded."""

    name: str
    class_names: tuple[str, ...]
    train_images: UInt8[Tensor, "n_train c h w"]
    train_labels: Int64[Tensor, " n_train"]
    test_images: UInt8[Tensor, "n_test c h w"]
    test_labels: Int64[Tensor, " n_test"]
    mean: tuple[float, ...]  # per channel, of the training pixels in 0..1
    std: tuple[float, ...]
    fingerprint: str


def pixel_statistics(images: UInt8[np.ndarray, "n c h w"]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel of pixels in 0..1, exact up to the last division: from counts of grey levels."""
    num_channels = images.shape[1]
    counts = np.zeros((num_channels, 256), dtype=np.int64)
    for start in range(0, len(images), _CHUNK):
        for channel in range(num_channels):
            counts[channel] += np.bincount(images[start : start + _CHUNK, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    shares = counts / counts.sum(axis=1, keepdims=True)
    means = shares @ levels
    deviations = np.sqrt((shares * (levels - means[:, None]) ** 2).sum(axis=1))
    # A channel of one constant grey would divide by zero: count it as varying by one grey level.
    return tuple(means.tolist()), tuple(np.maximum(deviations, 1 / 255).tolist())


def fingerprint(*arrays: np.ndarray) -> str:
    """SHA-256 over types, shapes and contents."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        for start in range(0, len(array), _CHUNK):
            digest.update(np.ascontiguousarray(array[start : start + _CHUNK]).data)
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
    digest = fingerprint(*(part.numpy() for part in (*train, *test)))
    return ImageArrays(name, class_names, *train, *test, mean, std, digest)
