"""The files in which CIFAR-10 (Krizhevsky 2009) is distributed: their checksums and their formats."""

import hashlib
import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Int64, UInt8

from litlab.errors import UserError

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SHAPE = (3, 32, 32)
BINARY_FOLDER, PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"
_NUM_PIXELS = 3 * 32 * 32
_RECORD = 1 + _NUM_PIXELS  # label, then red, green and blue, each row by row

Batch = tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]


@dataclass(frozen=True)
class FileFacts:
    """What a distributed file has to be: checked before anything in it is read."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """One distribution of the data set: two archives of the same images, and the files of the unpacked second one."""

    binary: FileFacts
    python: FileFacts
    python_md5: tuple[tuple[str, str], ...]  # name and MD5 of the training batches in order, the test batch last
    num_per_file: int

    @property
    def num_train_files(self) -> int:
        """Training batches, without the test batch."""
        return len(self.python_md5) - 1

    @property
    def python_names(self) -> tuple[str, ...]:
        """Batches in order, the test batch last."""
        return tuple(name for name, _ in self.python_md5)

    @property
    def binary_names(self) -> tuple[str, ...]:
        """The same in the binary archive."""
        return tuple(f"{name}.bin" for name in self.python_names)


# Sizes and SHA-256 as measured on the official archives; the MD5s are those that torchvision's CIFAR10 checks.
OFFICIAL = Release(
    binary=FileFacts(
        "cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    ),
    python=FileFacts(
        "cifar-10-python.tar.gz", 170_498_071, "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"
    ),
    python_md5=(
        ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
        ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
        ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
        ("data_batch_4", "634d18415352ddfa80567beed471001a"),
        ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
        ("test_batch", "40351d587109b95175f43aff81a1287e"),
    ),
    num_per_file=10_000,
)


def mismatch(path: Path, expected: FileFacts) -> str | None:
    """What about a file's size or SHA-256 is not as expected, in words; None where both are."""
    num_bytes = path.stat().st_size
    if num_bytes != expected.num_bytes:
        return f"it has {num_bytes:,} bytes, expected {expected.num_bytes:,}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return None if found == expected.sha256 else f"its SHA-256 is {found}, expected {expected.sha256}"


def parse_binary(content: bytes, where: str) -> Batch:
    """A batch of the binary archive. Raises UserError where it isn't one."""
    if not content or len(content) % _RECORD:
        raise UserError(f"{where} has {len(content):,} bytes, expected a multiple of {_RECORD:,}")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD)
    return _checked(records[:, 1:], records[:, 0].astype(np.int64), where)


def parse_pickle(content: bytes, where: str) -> Batch:
    """A batch of the python archive, whatever else the pickle may contain. Raises UserError where it isn't one."""
    try:
        batch = _BatchUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = batch[b"data"], np.array(batch[b"labels"], dtype=np.int64)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_NUM_PIXELS,):
            raise ValueError("its pixels are no array of bytes")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except Exception as error:  # a pickle is a program: anything may go wrong in it
        raise UserError(f"{where} is no batch of CIFAR-10 ({error}): get it again") from error
    return _checked(pixels, labels, where)


def _checked(pixels: np.ndarray, labels: np.ndarray, where: str) -> Batch:
    if labels.shape != (len(pixels),) or not ((labels >= 0) & (labels < len(CLASS_NAMES))).all():
        raise UserError(f"{where}: expected a label from 0 to {len(CLASS_NAMES) - 1} for each image")
    return pixels.reshape(-1, *IMAGE_SHAPE), labels


class _BatchUnpickler(pickle.Unpickler):
    """Knows what the official batches consist of: dicts, lists, numbers, bytes and arrays; nothing that can act."""

    _ALLOWED: ClassVar = {
        # NumPy 1 wrote the official files; NumPy 2 says numpy._core
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy._core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ALLOWED[module, name]
        except KeyError:
            raise UserError(f"the pickle asks for {module}.{name}, which no batch of CIFAR-10 needs: refused") from None
