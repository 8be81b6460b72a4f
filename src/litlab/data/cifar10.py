"""CIFAR-10: 50,000 training and 10,000 test images, 3x32x32, ten classes."""

import hashlib
import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np

from litlab.data.archive import archive_members
from litlab.data.arrays import ImageArrays
from litlab.data.cache import ArrayCache, DecodingPlan
from litlab.data.cifar10_files import (
    BINARY_FOLDER,
    CLASS_NAMES,
    IMAGE_SHAPE,
    OFFICIAL,
    PYTHON_FOLDER,
    Batch,
    FileFacts,
    Release,
    mismatch,
    parse_binary,
    parse_pickle,
)
from litlab.data.download import fetch_verified
from litlab.data.image_settings import ImageSettings
from litlab.data.module import ImageDataModule
from litlab.errors import UserError
from litlab.runs.lock import file_lock
from litlab.runs.redact import mask_addresses


class CIFAR10(ImageDataModule):
    """Uses what lies in `root` (the binary archive, else the python archive, else the folder it unpacks to), verified
    before it is read; where there is none of them, fetches the binary archive.

    root: folder of the distributed files; read only, unless something is to be fetched.
    url: of the binary archive; any other content than the official one is refused.
    cache: folder of the decoded arrays; once they are there, `root` isn't looked at.
    """

    release: ClassVar[Release] = OFFICIAL

    def __init__(self, *, root: str, url: str, cache: str, **settings: Unpack[ImageSettings]) -> None:
        super().__init__(**settings)
        self.root = Path(root).expanduser()
        self.url = url
        self.cache = ArrayCache(Path(cache).expanduser())

    @property
    def _key(self) -> str:
        # All sources hold the same images, and are known by checksum: no need to look which one it was.
        return f"cifar10-{hashlib.sha256(repr(self.release).encode()).hexdigest()[:16]}"

    def prepare_data(self) -> None:
        """Raises UserError for a source that is damaged, can't be fetched or can't be written."""
        self.cache.build(self._key, self._plan)

    def load_images(self) -> ImageArrays:
        """From the cache, mapped into memory. Raises LookupError where `prepare_data` didn't run."""
        return self.cache.load(self._key)

    def _plan(self) -> DecodingPlan:
        batches = find_batches(self.root, self.url, self.release)
        num_train_files, num_per_file = self.release.num_train_files, self.release.num_per_file

        def fill(
            train_images: np.ndarray, train_labels: np.ndarray, test_images: np.ndarray, test_labels: np.ndarray
        ) -> None:
            for number, (images, labels) in batches:
                if len(images) != num_per_file:
                    raise UserError(f"{self.root}: a batch has {len(images)} images, expected {num_per_file}")
                is_test = number == num_train_files
                start = 0 if is_test else number * num_per_file
                (test_images if is_test else train_images)[start : start + num_per_file] = images
                (test_labels if is_test else train_labels)[start : start + num_per_file] = labels

        return DecodingPlan(
            name="CIFAR-10",
            class_names=CLASS_NAMES,
            image_shape=IMAGE_SHAPE,
            num_train=num_train_files * num_per_file,
            num_test=num_per_file,
            fill=fill,
        )


def find_batches(root: Path, url: str, release: Release) -> Iterator[tuple[int, Batch]]:
    """Number and content of each batch (the test batch's number is the last), from the first source there is."""
    python_archive, python_folder = root / release.python.name, root / PYTHON_FOLDER
    if not (root / release.binary.name).exists():
        if python_archive.exists():
            _require_intact(python_archive, release.python)
            return _archived_batches(python_archive, PYTHON_FOLDER, release)
        if python_folder.is_dir():
            return _folder_batches(python_folder, release)
        _fetch(root, url, release)
    _require_intact(root / release.binary.name, release.binary)
    return _archived_batches(root / release.binary.name, BINARY_FOLDER, release)


def _archived_batches(archive: Path, folder: str, release: Release) -> Iterator[tuple[int, Batch]]:
    binary = folder == BINARY_FOLDER
    paths = [f"{folder}/{name}" for name in (release.binary_names if binary else release.python_names)]
    missing = set(paths)
    for member in archive_members(archive):
        path = str(member.path)
        if path in missing:
            missing.remove(path)
            parse = parse_binary if binary else parse_pickle
            yield paths.index(path), parse(member.read(), f"{path} in {archive}")
    if missing:
        raise UserError(f"{archive} lacks {', '.join(sorted(missing))}: get it again")


def _folder_batches(folder: Path, release: Release) -> Iterator[tuple[int, Batch]]:
    for number, (name, md5) in enumerate(release.python_md5):
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: complete the folder, or delete {folder} to have it fetched again")
        content = path.read_bytes()
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise UserError(f"{path} is damaged: its MD5 is {found}, expected {md5}. Delete {folder} or get it again")
        yield number, parse_pickle(content, str(path))


def _require_intact(archive: Path, expected: FileFacts) -> None:
    if problem := mismatch(archive, expected):
        raise UserError(f"{archive} is damaged or something else: {problem}. Delete it or get it again")


def _fetch(root: Path, url: str, release: Release) -> None:
    target = root / release.binary.name
    ways_on = (
        f"Ways on: put {release.binary.name} at {target}; train on images of your own with "
        "data=image_folder data.root=FOLDER_OR_ARCHIVE; or take data=shapes, which needs no download"
    )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root / f".{release.binary.name}.lock", wait=True):
            if not target.exists():
                fetch_verified(url, target, release.binary)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        reason, where = str(error) or type(error).__name__, mask_addresses(url)
        raise UserError(f"CIFAR-10 isn't in {root} and can't be fetched from {where}: {reason}. {ways_on}") from error
