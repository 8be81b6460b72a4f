"""Decoded images in memory, cached as npy files that processes map into memory and share.

An entry of the cache is a folder with four arrays and a JSON file. It is written under a temporary name and renamed, so
it is complete or absent. An entry whose files don't have the sizes, types and shapes in its JSON file counts as absent.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from litlab.errors import UserError
from litlab.runs.lock import file_lock

MANY_IMAGES = 5_000  # decoded in seconds: announced, or it would look like a hang
_FORMAT = 1
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")
_INDEX = "arrays.json"
_CHUNK_BYTES = 2**18  # of pixels at a time: counting takes eight bytes for each
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ImageSplits:
    """The official splits of a data set, wherever the images are.

    Attributes:
        name: Name of the data set.
        class_names: Names of the classes, by label.
        train_labels: Labels of the training split, shape n_train.
        test_labels: Labels of the test split, shape n_test; empty if there is none.
        mean: Mean per channel of the training pixels in 0..1.
        std: Standard deviation per channel of the training pixels in 0..1.
        fingerprint: SHA-256 over pixels and labels of both splits.
        num_val: Number of rows at the end of the training split that are an official validation split.
        notes: Sentences for the user on what is not used.
    """

    name: str
    class_names: tuple[str, ...]
    train_labels: Int64[Tensor, " n_train"]
    test_labels: Int64[Tensor, " n_test"]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str
    num_val: int = 0
    notes: tuple[str, ...] = ()


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


def image_statistics(*arrays: tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]) -> dict[str, Any]:
    """Compute the fields `mean`, `std` and `fingerprint` of `ImageSplits`, exact up to a division.

    Args:
        arrays: Type, shape and content (in parts of several rows) of the images and labels of the training split, then
            of the test split.
    """
    digest, counts = hashlib.sha256(), np.zeros((arrays[0][1][1], 256), dtype=np.int64)
    for number, (dtype, shape, parts) in enumerate(arrays):
        digest.update(f"{dtype.str}{shape}".encode())
        for part in parts:
            step = max(1, _CHUNK_BYTES * len(part) // max(1, part.nbytes))
            for start in range(0, len(part), step):
                chunk = part[start : start + step]
                digest.update(np.ascontiguousarray(chunk).data)
                if number == 0:
                    for channel, channel_counts in enumerate(counts):
                        channel_counts += np.bincount(chunk[:, channel].ravel(), minlength=256)
    levels = np.arange(256) / 255
    frequencies = counts / counts.sum(axis=1, keepdims=True)
    means = frequencies @ levels
    deviations = np.sqrt((frequencies * (levels - means[:, None]) ** 2).sum(axis=1))
    # A channel of one constant gray would divide by zero: count it as varying by one gray level.
    std = tuple(np.maximum(deviations, 1 / 255).tolist())
    return {"mean": tuple(means.tolist()), "std": std, "fingerprint": digest.hexdigest()}


def announce(line: str) -> None:
    """Print and log a line. Called under a lock, so that only one process prints it."""
    _log.info(line)
    print(line, flush=True)


def build_once(folder: Path, key: str, load: Callable[[], object], build: Callable[[], None]) -> None:
    """Build an entry of a cache in one process while others wait, unless it exists.

    Args:
        folder: The cache.
        key: Name of the entry.
        load: Loads the entry; raises LookupError if there is no intact one.
        build: Writes the entry.

    Raises:
        UserError: if the folder can't be written.
    """
    with suppress(LookupError):
        load()
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{key}.lock", wait=True):
            try:
                load()  # another process may have built it
            except LookupError:
                build()
    except OSError as error:
        raise UserError(
            f"The image cache {folder} can't be written ({error}): "
            "set data.cache (or LITLAB_CACHE) to a writable folder with enough space"
        ) from error


@dataclass(frozen=True)
class DecodingPlan:
    """Number and shape of the images of a data set that is not decoded yet, with the function that decodes them.

    Attributes:
        name: Name of the data set.
        class_names: Names of the classes, by label.
        image_shape: Channels, height, width.
        num_train: Number of training images.
        num_test: Number of test images.
        fill: Writes into train_images, train_labels, test_images and test_labels: arrays of uint8 of shape n c h w and
            of int64 of shape n.
        num_val, notes: See `ImageSplits`.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    fill: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]
    num_val: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ArrayCache:
    """The decoded data sets in one folder; a key identifies source and content of a data set in a file name."""

    folder: Path

    def load(self, key: str) -> ImageArrays:
        """Map the arrays of an entry copy-on-write, after a check of sizes and headers.

        Raises:
            LookupError: if there is no intact entry.
        """
        entry = self.folder / key
        try:
            index = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
            if index["format"] != _FORMAT:
                raise LookupError(f"{entry} has format {index['format']}")
            arrays = {name: _map_array(entry / f"{name}.npy", index["arrays"][name]) for name in _ARRAYS}
            return ImageArrays(
                name=index["name"],
                class_names=tuple(index["class_names"]),
                mean=tuple(index["mean"]),
                std=tuple(index["std"]),
                fingerprint=index["fingerprint"],
                num_val=index["num_val"],
                notes=tuple(index["notes"]),
                **{name: torch.from_numpy(array) for name, array in arrays.items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LookupError(f"{entry} is absent or damaged: {error}") from error

    def build(self, key: str, make_plan: Callable[[], DecodingPlan]) -> None:
        """Make sure that an intact entry exists. A failure leaves nothing behind.

        Raises:
            UserError: if the folder can't be written, and whatever making the plan or decoding raises.
        """
        build_once(self.folder, key, lambda: self.load(key), lambda: self._decode(key, make_plan()))

    def _decode(self, key: str, plan: DecodingPlan) -> None:
        num_images = plan.num_train + plan.num_test
        if num_images > MANY_IMAGES:
            announce(f"Decoding {num_images:,} images of {plan.name}, once, into {self.folder}")
        prefix = f".{key}.part-"
        for leftover in self.folder.glob(f"{prefix}*"):  # of a killed process: this one holds the lock
            shutil.rmtree(leftover)
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))
        try:
            unfinished.chmod(0o755)  # readable as other files are, not as mkdtemp makes it
            _write_entry(unfinished, plan)
            entry = self.folder / key
            if entry.exists():  # and is damaged
                entry.rename(Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder)) / "damaged")
            unfinished.rename(entry)
        finally:
            for leftover in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(leftover)


def _write_entry(folder: Path, plan: DecodingPlan) -> None:
    shapes: tuple[tuple[int, ...], ...] = (
        (plan.num_train, *plan.image_shape),
        (plan.num_train,),
        (plan.num_test, *plan.image_shape),
        (plan.num_test,),
    )
    arrays = [_new_array(folder / f"{name}.npy", shape) for name, shape in zip(_ARRAYS, shapes, strict=True)]
    plan.fill(*arrays)
    for array in arrays:
        array.flush()
    index = {
        "format": _FORMAT,
        "name": plan.name,
        "class_names": plan.class_names,
        "num_val": plan.num_val,
        "notes": plan.notes,
        **image_statistics(*((array.dtype, array.shape, [array]) for array in arrays)),
        "arrays": {name: _describe(array) for name, array in zip(_ARRAYS, arrays, strict=True)},
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    dtype = np.uint8 if len(shape) > 1 else np.int64
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # writing to a mapped hole on a full disk would be a bus error, no exception
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _map_array(path: Path, expected: dict[str, Any]) -> np.memmap:
    array: np.memmap = np.load(path, mmap_mode="c", allow_pickle=False)
    if _describe(array) != expected or path.stat().st_size != array.offset + array.nbytes:
        raise LookupError(f"{path} is not the array that was written")
    return array


def _describe(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": list(array.shape)}
