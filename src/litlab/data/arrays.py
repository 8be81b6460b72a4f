"""Decoded images in memory, cached as npy files that processes map into memory and share.

An entry of the cache is a folder of arrays and a JSON file. It is written under a temporary name and renamed, so it is
complete or absent. An entry whose files don't have the sizes, types and shapes in its JSON file counts as absent.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from litlab.errors import UserError
from litlab.runs.lock import temporary_lock

MANY_IMAGES = 5_000  # decoded in seconds: announced, or it would look like a hang
_FORMAT = 2
_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels", "train_sums")
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
        train_sums: Sum of the pixels, then sum of their squares, of each training image and channel, shape n_train 2 c.
        fingerprint: SHA-256 over pixels and labels of both splits.
        num_val: Number of rows at the end of the training split that are an official validation split.
        notes: Sentences for the user on what is not used.
        bit_depth: Bits that 16-bit images were scaled from; None if there are none.
        skipped: Paths of the images that could not be read and are left out.
    """

    name: str
    class_names: tuple[str, ...]
    train_labels: Int64[Tensor, " n_train"]
    test_labels: Int64[Tensor, " n_test"]
    train_sums: Int64[Tensor, "n_train 2 c"]
    fingerprint: str
    num_val: int = 0
    notes: tuple[str, ...] = ()
    bit_depth: int | None = None
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ImageArrays(ImageSplits):
    """Both official splits in memory.

    Attributes:
        train_images: Shape n_train c h w.
        test_images: Shape n_test c h w.
    """

    train_images: UInt8[Tensor, "n_train c h w"]
    test_images: UInt8[Tensor, "n_test c h w"]

    @classmethod
    def from_tensors(
        cls,
        *,
        name: str,
        class_names: Sequence[str],
        train_images: Tensor,
        train_labels: Tensor,
        test_images: Tensor,
        test_labels: Tensor,
    ) -> "ImageArrays":
        """Return the splits with their statistics.

        Args:
            name: Name of the data set.
            class_names: Names of the classes, by label.
            train_images: Shape n_train c h w, uint8.
            train_labels: Shape n_train, integers from 0.
            test_images: Shape n_test c h w, uint8.
            test_labels: Shape n_test, integers from 0.

        Raises:
            UserError: If images are not uint8 `n c h w` of one shape, or labels are not one class number for each.
        """
        check_images("train_images", train_images)
        check_images("test_images", test_images)
        if train_images.shape[1:] != test_images.shape[1:]:
            raise UserError(
                f"data: train_images are {_axes(train_images.shape[1:])} and test_images "
                f"{_axes(test_images.shape[1:])}: expected one shape c h w for both"
            )
        train_labels = check_labels("train_labels", train_labels, len(train_images), len(class_names))
        test_labels = check_labels("test_labels", test_labels, len(test_images), len(class_names))
        arrays = [tensor.numpy() for tensor in (train_images, train_labels, test_images, test_labels)]
        return cls(
            name=name,
            class_names=tuple(class_names),
            train_images=train_images,
            train_labels=train_labels,
            test_images=test_images,
            test_labels=test_labels,
            **image_statistics(*((array.dtype, array.shape, [array]) for array in arrays)),
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        num_channels, height, width = self.train_images.shape[1:]
        return num_channels, height, width

    def read(self, split: Literal["train", "test"]) -> Callable[[int], UInt8[Tensor, "c h w"]]:
        """Return a function that returns the image of a row of a split."""
        images = self.train_images if split == "train" else self.test_images
        return images.__getitem__


def check_images(name: str, images: Any) -> None:
    """Raise a UserError unless images are a uint8 tensor `n c h w`."""
    if not isinstance(images, Tensor):
        found = type(images).__name__
        raise UserError(f"data: {name} is a {found}: expected a uint8 tensor n c h w; torch.from_numpy converts arrays")
    if images.dtype != torch.uint8:
        low, high = (images.min().item(), images.max().item()) if images.numel() else (0, 0)
        is_unit = images.is_floating_point() and low >= 0 and high <= 1
        scaling = "multiply by 255" if is_unit else "scale to that range"
        raise UserError(
            f"data: {name} are {_dtype(images)} from {low:.3g} to {high:.3g}: expected uint8 from 0 to 255; {scaling} "
            "and convert by .byte()"
        )
    is_channels_last = images.ndim == 4 and images.shape[3] <= 4 < images.shape[1]
    if images.ndim == 4 and not is_channels_last:
        return
    remedy = "reshape them"
    if is_channels_last:
        remedy = "convert n h w c by .permute(0, 3, 1, 2)"
    elif images.ndim == 3:
        remedy = "add the axis of channels to gray images n h w by .unsqueeze(1)"
    raise UserError(f"data: {name} have the shape {_axes(images.shape)}: expected n c h w; {remedy}")


def check_labels(name: str, labels: Any, num_images: int, num_classes: int) -> Int64[Tensor, " n"]:
    """Return labels as int64; raise a UserError unless they are one class number for each image."""
    expected = f"expected {num_images} class numbers from 0 to {num_classes - 1}, one for each image"
    if not isinstance(labels, Tensor):
        raise UserError(f"data: {name} is a {type(labels).__name__}: expected a tensor; {expected}")
    if labels.shape != (num_images,):
        raise UserError(f"data: {name} have the shape {_axes(labels.shape)}: {expected}")
    if labels.is_floating_point() or labels.is_complex():
        raise UserError(f"data: {name} are {_dtype(labels)}: {expected}; convert them by .long()")
    numbers: Tensor = labels.long()
    if num_images and not 0 <= numbers.min() <= numbers.max() < num_classes:
        raise UserError(
            f"data: {name} are from {numbers.min()} to {numbers.max()}: {expected}, since class_names has "
            f"{num_classes} names"
        )
    return numbers


def _axes(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "()"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def image_statistics(*arrays: tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]) -> dict[str, Any]:
    """Compute the fields `train_sums` and `fingerprint` of `ImageSplits`.

    Args:
        arrays: Type, shape and content (in parts of several rows) of the images and labels of the training split, then
            of the test split.
    """
    digest, sums = hashlib.sha256(), []
    for number, (dtype, shape, parts) in enumerate(arrays):
        digest.update(f"{dtype.str}{shape}".encode())
        for part in parts:
            step = max(1, _CHUNK_BYTES * len(part) // max(1, part.nbytes))
            for start in range(0, len(part), step):
                chunk = part[start : start + step]
                digest.update(np.ascontiguousarray(chunk).data)
                if number == 0:
                    sums.append(pixel_sums(chunk))
    return {"train_sums": torch.from_numpy(np.concatenate(sums)), "fingerprint": digest.hexdigest()}


def pixel_sums(images: UInt8[np.ndarray, "n c h w"]) -> Int64[np.ndarray, "n 2 c"]:
    """Return rows of `ImageSplits.train_sums`."""
    pixels = images.reshape(*images.shape[:2], -1).astype(np.int64)
    return np.stack([pixels.sum(axis=2), np.square(pixels).sum(axis=2)], axis=1)


def mean_and_std(sums: Int64[Tensor, "n 2 c"], pixels_per_image: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, of pixels in 0..1, correctly rounded.

    Args:
        sums: Rows of `ImageSplits.train_sums`.
        pixels_per_image: Height times width.
    """
    num_pixels = max(1, len(sums) * pixels_per_image)
    totals, squares = sums.sum(dim=0).tolist()  # Python's integers, which don't overflow when they are multiplied
    means = tuple(total / (255 * num_pixels) for total in totals)
    variances = [
        (num_pixels * square - total**2) / (255 * num_pixels) ** 2
        for total, square in zip(totals, squares, strict=True)
    ]
    # A channel of one constant gray would divide by zero: count it as varying by one gray level.
    return means, tuple(max(math.sqrt(variance), 1 / 255) for variance in variances)


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
        with temporary_lock(folder / f".{key}.lock"):
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
            of int64 of shape n. Returns None, or another plan to carry out instead.
        num_val, notes, bit_depth, skipped: See `ImageSplits`.
        action: Description of what `fill` does, for the user.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    num_train: int
    num_test: int
    fill: "Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], DecodingPlan | None]"
    num_val: int = 0
    notes: tuple[str, ...] = ()
    bit_depth: int | None = None
    skipped: tuple[str, ...] = ()
    action: str = "Decoding"


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
                bit_depth=index["bit_depth"],
                skipped=tuple(index["skipped"]),
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
            announce(f"{plan.action} {num_images:,} images of {plan.name}, once, into {self.folder}")
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
    next_plan: DecodingPlan | None = plan
    while next_plan is not None:
        plan = next_plan
        arrays = _new_arrays(folder, plan)
        next_plan = plan.fill(*arrays.values())
    for array in arrays.values():
        array.flush()
    statistics = image_statistics(*((array.dtype, array.shape, [array]) for array in arrays.values()))
    sums = statistics["train_sums"].numpy()
    np.save(folder / "train_sums.npy", sums)
    index = {
        "format": _FORMAT,
        "name": plan.name,
        "class_names": plan.class_names,
        "num_val": plan.num_val,
        "notes": plan.notes,
        "fingerprint": statistics["fingerprint"],
        "bit_depth": plan.bit_depth,
        "skipped": plan.skipped,
        "arrays": {name: _describe(array) for name, array in {**arrays, "train_sums": sums}.items()},
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _new_arrays(folder: Path, plan: DecodingPlan) -> dict[str, np.memmap]:
    arrays = {}
    for split, num_images in (("train", plan.num_train), ("test", plan.num_test)):
        arrays[f"{split}_images"] = _new_array(folder / f"{split}_images.npy", (num_images, *plan.image_shape))
        arrays[f"{split}_labels"] = _new_array(folder / f"{split}_labels.npy", (num_images,))
    return arrays


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
