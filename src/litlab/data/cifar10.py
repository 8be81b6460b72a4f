"""CIFAR-10 (Krizhevsky 2009): 50,000 training and 10,000 test images, 3x32x32, ten classes."""

import hashlib
import http.client
import io
import pickle
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np
from jaxtyping import Int64, UInt8

from litlab.data.archive import archive_members
from litlab.data.arrays import ArrayCache, DecodingPlan, ImageArrays
from litlab.data.download import Checksum, download
from litlab.data.module import ImageDataModule, ImageSettings
from litlab.errors import UserError
from litlab.runs.lock import temporary_lock
from litlab.runs.redact import mask_addresses

CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
IMAGE_SHAPE = (3, 32, 32)
_NUM_PIXELS = 3 * 32 * 32
_RECORD_BYTES = 1 + _NUM_PIXELS  # label, then red, green and blue, each row by row
_BINARY_FOLDER, _PYTHON_FOLDER = "cifar-10-batches-bin", "cifar-10-batches-py"

FileContent = tuple[UInt8[np.ndarray, "n 3 32 32"], Int64[np.ndarray, " n"]]
"""Images and labels of a distributed file."""


@dataclass(frozen=True)
class Release:
    """A distribution of the data set: two archives of the same images.

    Attributes:
        binary: The binary archive.
        python: The python archive.
        python_md5: Name and MD5 of the files in the python archive: training files in order, the test file last.
        num_per_file: Number of images in each file.
    """

    binary: Checksum
    python: Checksum
    python_md5: tuple[tuple[str, str], ...]
    num_per_file: int


# Sizes and SHA-256 as measured on the official archives; the MD5s are those that torchvision's CIFAR10 checks.
OFFICIAL = Release(
    binary=Checksum(
        "cifar-10-binary.tar.gz", 170_052_171, "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    ),
    python=Checksum(
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


class CIFAR10(ImageDataModule):
    """CIFAR-10 from the first source in `root`: the binary archive, the python archive or its unpacked folder.

    The source is verified before it is read. If there is none, the binary archive is downloaded.

    Args:
        root: Folder of the distributed files; only read, unless the archive has to be downloaded.
        url: Address of the binary archive; any other content than the official one is refused.
        cache: Folder of the decoded arrays; once they exist, `root` is not read.
        settings: Arguments of every data module, see `ImageSettings`.
    """

    release: ClassVar[Release] = OFFICIAL

    def __init__(self, *, root: str, url: str, cache: str, **settings: Unpack[ImageSettings]) -> None:
        super().__init__(**settings)
        self.root = Path(root).expanduser()
        self.url = url
        self.cache = ArrayCache(Path(cache).expanduser())

    @property
    def cache_folder(self) -> Path:
        """Folder of the decoded arrays."""
        return self.cache.folder

    @property
    def _key(self) -> str:
        # All sources hold the same images and are known by checksum, so one entry serves all of them.
        return f"cifar10-{hashlib.sha256(repr(astuple(self.release)).encode()).hexdigest()[:16]}"

    def prepare_data(self) -> None:
        """Verify and decode the images unless the cache has them.

        Raises:
            UserError: if the source is damaged, can't be downloaded or can't be written.
        """
        self.cache.build(self._key, self._decoding_plan)

    def load_images(self) -> ImageArrays:
        """Map the arrays in the cache into memory.

        Raises:
            LookupError: if `prepare_data` was not called.
        """
        return self.cache.load(self._key)

    def _decoding_plan(self) -> DecodingPlan:
        files = _read_files(self.root, self.url, self.release)
        num_train_files, num_per_file = len(self.release.python_md5) - 1, self.release.num_per_file

        def fill(*arrays: np.ndarray) -> None:
            for number, (images, labels) in files:
                if len(images) != num_per_file:
                    raise UserError(f"{self.root}: a file has {len(images)} images, expected {num_per_file}")
                first_array, start = (2, 0) if number == num_train_files else (0, number * num_per_file)
                arrays[first_array][start : start + num_per_file] = images
                arrays[first_array + 1][start : start + num_per_file] = labels

        return DecodingPlan(
            name="CIFAR-10",
            class_names=CLASS_NAMES,
            image_shape=IMAGE_SHAPE,
            num_train=num_train_files * num_per_file,
            num_test=num_per_file,
            fill=fill,
        )


def parse_binary(content: bytes, source: str) -> FileContent:
    """Parse a file of the binary archive.

    Args:
        content: Records of a label and 3,072 pixels.
        source: Name of the file in error messages.

    Raises:
        UserError: for any other content.
    """
    if not content or len(content) % _RECORD_BYTES:
        raise UserError(f"{source} has {len(content):,} bytes, expected a multiple of {_RECORD_BYTES:,}")
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, _RECORD_BYTES)
    return _checked(records[:, 1:], records[:, 0].astype(np.int64), source)


def parse_pickle(content: bytes, source: str) -> FileContent:
    """Parse a file of the python archive with an unpickler that creates arrays, bytes and numbers only.

    Args:
        content: A pickled dict of pixels, shape n 3072, and labels.
        source: Name of the file in error messages.

    Raises:
        UserError: for any other content.
    """
    try:
        fields = _ArrayUnpickler(io.BytesIO(content), encoding="bytes").load()
        pixels, labels = fields[b"data"], np.array(fields[b"labels"], dtype=np.int64)
        if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_NUM_PIXELS,):
            raise ValueError("its pixels are no array of bytes")
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    except Exception as error:  # a pickle is a program: anything may go wrong in it
        raise UserError(f"{source} is not a file of CIFAR-10 ({error}): download it again") from error
    return _checked(pixels, labels, source)


def _checked(pixels: np.ndarray, labels: np.ndarray, source: str) -> FileContent:
    if labels.shape != (len(pixels),) or not ((labels >= 0) & (labels < len(CLASS_NAMES))).all():
        raise UserError(f"{source}: expected a label from 0 to {len(CLASS_NAMES) - 1} for each image")
    return pixels.reshape(-1, *IMAGE_SHAPE), labels


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler of dicts, lists, numbers, bytes and arrays; every other class or function is refused."""

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
            raise UserError(f"the pickle refers to {module}.{name}, which CIFAR-10 does not need: refused") from None


def _read_files(root: Path, url: str, release: Release) -> Iterator[tuple[int, FileContent]]:
    """Yield number and content of each file, from the first source there is; the test file has the last number."""
    archive, checksum, folder = root / release.binary.name, release.binary, _BINARY_FOLDER
    if not archive.exists():
        if (root / release.python.name).exists():
            archive, checksum, folder = root / release.python.name, release.python, _PYTHON_FOLDER
        elif (root / _PYTHON_FOLDER).is_dir():
            return _unpacked_files(root / _PYTHON_FOLDER, release)
        else:
            _download(root, url, release)
    if problem := checksum.mismatch(archive):
        raise UserError(f"{archive} is damaged or another file: {problem}. Delete it or download it again")
    return _archived_files(archive, folder, release)


def _archived_files(archive: Path, folder: str, release: Release) -> Iterator[tuple[int, FileContent]]:
    suffix, parse = (".bin", parse_binary) if folder == _BINARY_FOLDER else ("", parse_pickle)
    numbers = {f"{folder}/{name}{suffix}": number for number, (name, _) in enumerate(release.python_md5)}
    for member in archive_members(archive):
        number = numbers.pop(str(member.path), None)
        if number is not None:
            yield number, parse(member.read(), f"{member.path} in {archive}")
    if numbers:
        raise UserError(f"{archive} lacks {', '.join(sorted(numbers))}: download it again")


def _unpacked_files(folder: Path, release: Release) -> Iterator[tuple[int, FileContent]]:
    for number, (name, expected) in enumerate(release.python_md5):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: complete the folder, or delete {folder} to download the data again")
        content = path.read_bytes()
        md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if md5 != expected:
            raise UserError(
                f"{path} is damaged: its MD5 is {md5}, expected {expected}. Delete {folder} to download the data again"
            )
        yield number, parse_pickle(content, str(path))


def _download(root: Path, url: str, release: Release) -> None:
    target = root / release.binary.name
    try:
        root.mkdir(parents=True, exist_ok=True)
        with temporary_lock(root / f".{release.binary.name}.lock"):
            if not target.exists():
                download(url, target, release.binary)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise UserError(
            f"CIFAR-10 isn't in {root} and can't be downloaded from {mask_addresses(url)}: "
            f"{str(error) or type(error).__name__}. Put {release.binary.name} at {target}; or train on images of your "
            "own with data=image_folder data.root=FOLDER_OR_ARCHIVE; or take data=shapes, which needs no download"
        ) from error
