"""Decoded arrays on disk: plain npy files that processes map into memory and share.

An entry is a folder with the four arrays and a JSON file. It is written under a temporary name and renamed, so it is
complete or absent; an entry whose files don't have the sizes, types and shapes that its JSON says counts as absent.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from litlab.data.arrays import ImageArrays, fingerprint, pixel_statistics
from litlab.errors import UserError
from litlab.runs.lock import file_lock

_log = logging.getLogger(__name__)


def announce(line: str) -> None:
    """One line to the terminal and to the log. For work under a lock: one process does it, so one speaks."""
    _log.info(line)
    print(line, flush=True)


_FORMAT = 1
_PARTS = ("train_images", "train_labels", "test_images", "test_labels")
_INDEX = "arrays.json"
_MANY_IMAGES = 5_000  # decoded in seconds: worth a line, or it would look like a hang


@dataclass(frozen=True)
class DecodingPlan:
    """A data set whose images are counted but not decoded.

    fill(train_images, train_labels, test_images, test_labels) writes into arrays of the shapes
    (num_train, *image_shape), (num_train,), (num_test, *image_shape), (num_test,), uint8 and int64.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]  # c h w
    num_train: int
    num_test: int
    fill: Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class ArrayCache:
    """The decoded data sets in one folder; `key` names a data set's source and content in a file name."""

    folder: Path

    def holds(self, key: str) -> bool:
        """Whether there is an intact entry; looks at sizes and headers, not at pixels."""
        try:
            self.load(key)
        except LookupError:
            return False
        return True

    def load(self, key: str) -> ImageArrays:
        """The entry's arrays, mapped copy-on-write. Raises LookupError where there is no intact entry."""
        entry = self.folder / key
        try:
            index = json.loads((entry / _INDEX).read_text(encoding="utf-8"))
            if index["format"] != _FORMAT:
                raise LookupError(f"{entry} has format {index['format']}")
            parts = {part: _mapped(entry / f"{part}.npy", index["arrays"][part]) for part in _PARTS}
            return ImageArrays(
                name=index["name"],
                class_names=tuple(index["class_names"]),
                mean=tuple(index["mean"]),
                std=tuple(index["std"]),
                fingerprint=index["fingerprint"],
                **{part: torch.from_numpy(array) for part, array in parts.items()},
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LookupError(f"{entry} is absent or damaged: {error}") from error

    def build(self, key: str, make_plan: Callable[[], DecodingPlan]) -> None:
        """Makes sure of an intact entry. One process decodes, others wait; a failure leaves nothing behind.

        Raises UserError where the folder can't be written, and whatever making or following the plan raises.
        """
        if self.holds(key):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / f".{key}.lock", wait=True):
                if not self.holds(key):
                    self._decode(key, make_plan())
        except OSError as error:
            raise UserError(
                f"The decoded images can't be kept in {self.folder} ({error}): "
                "set data.cache (or LITLAB_CACHE) to a folder with space that can be written"
            ) from error

    def _decode(self, key: str, plan: DecodingPlan) -> None:
        num_images = plan.num_train + plan.num_test
        if num_images > _MANY_IMAGES:
            announce(f"Decoding {num_images:,} images of {plan.name}, once, into {self.folder}")
        prefix = f".{key}.part-"
        for left_behind in self.folder.glob(f"{prefix}*"):  # by a killed process: nobody else holds the lock
            shutil.rmtree(left_behind)
        unfinished = Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder))
        try:
            unfinished.chmod(0o755)  # readable as other files are, not as mkdtemp makes it
            _write_entry(unfinished, plan)
            damaged = self.folder / key
            if damaged.exists():
                damaged.rename(Path(tempfile.mkdtemp(prefix=prefix, dir=self.folder)) / "damaged")
            unfinished.rename(damaged)
        finally:
            for rest in self.folder.glob(f"{prefix}*"):
                shutil.rmtree(rest)


def _write_entry(folder: Path, plan: DecodingPlan) -> None:
    shapes = {
        "train_images": (plan.num_train, *plan.image_shape),
        "train_labels": (plan.num_train,),
        "test_images": (plan.num_test, *plan.image_shape),
        "test_labels": (plan.num_test,),
    }
    arrays = [_new_array(folder / f"{part}.npy", shapes[part]) for part in _PARTS]
    plan.fill(*arrays)
    for array in arrays:
        array.flush()
    mean, std = pixel_statistics(arrays[0])
    index = {
        "format": _FORMAT,
        "name": plan.name,
        "class_names": plan.class_names,
        "mean": mean,
        "std": std,
        "fingerprint": fingerprint(*arrays),
        "arrays": {part: _description(array) for part, array in zip(_PARTS, arrays, strict=True)},
    }
    (folder / _INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")


def _new_array(path: Path, shape: tuple[int, ...]) -> np.memmap:
    dtype = np.uint8 if len(shape) > 1 else np.int64
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    if hasattr(os, "posix_fallocate"):  # writing to a mapped hole of a full disk would be a bus error, not an exception
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _mapped(path: Path, expected: dict[str, Any]) -> np.memmap:
    array: np.memmap = np.load(path, mmap_mode="c", allow_pickle=False)
    if _description(array) != expected or path.stat().st_size != array.offset + array.nbytes:
        raise LookupError(f"{path} is not the array that was written")
    return array


def _description(array: np.ndarray) -> dict[str, Any]:
    return {"dtype": array.dtype.str, "shape": list(array.shape)}
