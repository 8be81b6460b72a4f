"""Listing of the labeled images in a folder or archive of the layout `train/<class>/*`, `test/<class>/*`."""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Int64

from litlab.data.archive import MAX_MEMBER_BYTES, archive_members, is_archive
from litlab.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_LAYOUT = "expected train/<class>/* and test/<class>/* with JPEG, PNG or WebP images"
_HIDDEN = re.compile(r"(^|/)\.|^__MACOSX(/|$)")
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # Python's surrogates for bytes that can't be decoded


@dataclass(frozen=True)
class Split:
    """Images of one split, sorted by class and name.

    Attributes:
        paths: Paths in the folder or archive, as bytes in one array: a list of strings takes many times the memory, and
            a forked process copies it, object by object.
        labels: Labels, shape n.
    """

    paths: np.ndarray
    labels: Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class ImageListing:
    """Labeled images of both splits."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split

    @classmethod
    def of(cls, root: Path) -> "ImageListing":
        """List the images of a folder or archive.

        Raises:
            UserError: for files and classes that can't be used, naming them.
        """
        images = sorted(list_images(root))
        class_names = _class_names(root, images)
        labels = {name: label for label, name in enumerate(class_names)}

        def select(split: str) -> Split:
            selected = [image for image in images if image.split == split]
            paths = np.array([image.path.encode() for image in selected])
            return Split(paths, np.array([labels[image.class_name] for image in selected], dtype=np.int64))

        name = root.name.split(".")[0] if is_archive(root) else root.name
        return cls(name, class_names, select("train"), select("test"))


@dataclass(frozen=True, order=True, slots=True)
class ImageFile:
    """Split, class and name of an image, by which images are sorted, with its path in the folder or archive."""

    split: str
    class_name: str
    name: str
    path: str


def list_images(root: Path) -> list[ImageFile]:
    """List the images of both splits; an archive may have a single folder around `train` and `test`.

    Raises:
        UserError: for what is not a plain file, and for a path that occurs twice.
    """
    if root.is_dir():
        paths = [PurePosixPath(path) for path, _ in _walk(root)]
    else:
        members = (member.path for member in archive_members(root))
        paths = [path for path in members if not _HIDDEN.search(str(path))]
    top_folders = {path.parts[0] for path in paths}
    depth = 1 if len(top_folders) == 1 and top_folders.isdisjoint({"train", "test"}) else 0
    images: dict[ImageFile, None] = {}
    for path in paths:
        parts = path.parts[depth:]
        if len(parts) < 3 or parts[0] not in ("train", "test") or not path.name.lower().endswith(SUFFIXES):
            continue
        image = ImageFile(parts[0], parts[1], "/".join(parts[2:]), str(path))
        if image in images:  # one would overwrite the other
            raise UserError(f"{root} holds {image.path} twice: remove one of them")
        images[image] = None
    return list(images)


def file_stamps(root: Path) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and time of change in ns of an archive, or of each image of a folder."""
    files = _walk(root) if root.is_dir() else [(root.name, root.stat())]
    return [(path, status.st_size, status.st_mtime_ns) for path, status in files]


def check_root(root: Path) -> None:
    """Raise a UserError unless a path is a folder of images or an archive."""
    if not root.exists():
        raise UserError(f"data.root={root} does not exist: {_LAYOUT}, in a folder or an archive")
    if root.is_dir():
        for split in ("train", "test"):
            if not (root / split).is_dir():
                raise UserError(f"data.root={root} has no folder {split}: {_LAYOUT}")
    elif not is_archive(root):
        raise UserError(f"data.root={root} is neither a folder nor a tar or zip archive by its name: {_LAYOUT}")


class OutputRows(Mapping[str, np.ndarray]):
    """Mapping of an image's path to its row in one of several arrays.

    A dict would take more memory than a tenth of the pixels of small images; this takes eight bytes a path.

    Args:
        arrays: The paths of an array's rows as bytes, and the array.
    """

    def __init__(self, *arrays: tuple[np.ndarray, np.ndarray]) -> None:
        self._arrays = [(paths, images, np.argsort(paths)) for paths, images in arrays]

    def __getitem__(self, path: str) -> np.ndarray:
        encoded = path.encode()
        for paths, images, order in self._arrays:
            position = int(np.searchsorted(paths, encoded, sorter=order))
            if position < len(paths) and paths[order[position]] == encoded:
                row: np.ndarray = images[order[position]]
                return row
        raise KeyError(path)

    def __iter__(self) -> Iterator[str]:
        return (path.decode() for paths, _, _ in self._arrays for path in paths)

    def __len__(self) -> int:
        return sum(len(paths) for paths, _, _ in self._arrays)


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield path and status of the image files under train and test, sorted. Links are followed."""
    folders = [root / "test", root / "train"]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            for entry in ordered:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(folder / entry.name)
                elif entry.name.lower().endswith(SUFFIXES):
                    _check_file(entry.path, entry.stat())
                    yield os.path.relpath(entry.path, root), entry.stat()
        except OSError as error:
            raise UserError(f"{error.filename or folder} can't be read: {error.strerror}") from error


def _check_file(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
        raise UserError(f"{path} is not a plain file: remove it")
    if status.st_size > MAX_MEMBER_BYTES:
        raise UserError(f"{path} has {status.st_size:,} bytes, more than an image could need: remove it")
    if not path.isascii() and _NOT_UTF8.search(path):
        raise UserError(f"{path!a} has a name that is not UTF-8: rename it")


def _class_names(root: Path, images: Sequence[ImageFile]) -> tuple[str, ...]:
    """Return the sorted names of the classes, which both splits must have."""
    classes = {split: {image.class_name for image in images if image.split == split} for split in ("train", "test")}
    for split in classes:
        if not classes[split]:
            raise UserError(f"{root} has no images in {split}/<class>/: {_LAYOUT}")
    for present, absent in (("train", "test"), ("test", "train")):
        if alone := ", ".join(sorted(classes[present] - classes[absent])):
            raise UserError(f"{root}: {alone} has images in {present} but none in {absent}: every class needs both")
    if len(classes["train"]) < 2:
        raise UserError(f"{root} has only the class {', '.join(classes['train'])}: at least two are needed")
    return tuple(sorted(classes["train"]))
