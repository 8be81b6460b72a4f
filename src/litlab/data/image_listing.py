"""Which images a folder or an archive of one has, in the order of the data set, with their labels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from litlab.data.archive import is_archive
from litlab.data.image_files import ImageFile, list_images
from litlab.errors import UserError

LAYOUT = "expected train/<class>/* and test/<class>/* with JPEG, PNG or WebP images"


@dataclass(frozen=True)
class Split:
    """Images of one split.

    paths: under which they are stored, as bytes in one array: a list of texts takes many times the memory, and a forked
        process copies it, object by object.
    labels: int64.
    """

    paths: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Listing:
    """Images by split, class and name."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split

    @classmethod
    def of(cls, root: Path) -> "Listing":
        """Raises UserError, naming the file or class, for what can't be used."""
        files = sorted(set(list_images(root)))
        class_names = checked_classes(root, files)
        name = root.name.split(".")[0] if is_archive(root) else root.name
        return cls(name, class_names, *(_split(files, split, class_names) for split in ("train", "test")))


def _split(files: Sequence[ImageFile], split: str, class_names: tuple[str, ...]) -> Split:
    chosen = [file for file in files if file.split == split]
    labels = {name: label for label, name in enumerate(class_names)}
    paths = np.array([file.stored.encode() for file in chosen])
    return Split(paths, np.array([labels[file.class_name] for file in chosen], dtype=np.int64))


class Places(Mapping[str, np.ndarray]):
    """Stored path -> where its pixels go: a row of one of the arrays, which come with the paths of their rows.

    A dict would take more memory than a tenth of the pixels of small images; this takes eight bytes a path.
    """

    def __init__(self, *arrays: tuple[np.ndarray, np.ndarray]) -> None:
        self._paths = [paths for paths, _ in arrays]
        self._images = [images for _, images in arrays]
        self._orders = [np.argsort(paths) for paths in self._paths]

    def __getitem__(self, stored: str) -> np.ndarray:
        sought = stored.encode()
        for paths, images, order in zip(self._paths, self._images, self._orders, strict=True):
            position = int(np.searchsorted(paths, sought, sorter=order))
            if position < len(paths) and paths[order[position]] == sought:
                place: np.ndarray = images[order[position]]
                return place
        raise KeyError(stored)

    def __iter__(self) -> Iterator[str]:
        return (path.decode() for paths in self._paths for path in paths)

    def __len__(self) -> int:
        return sum(map(len, self._paths))


def check_root(root: Path) -> None:
    """Raises UserError for what is no folder of images and no archive."""
    if not root.exists():
        raise UserError(f"data.root={root} does not exist: {LAYOUT}, in a folder or an archive")
    if root.is_dir():
        for split in ("train", "test"):
            if not (root / split).is_dir():
                raise UserError(f"data.root={root} has no folder {split}: {LAYOUT}")
    elif not is_archive(root):
        raise UserError(f"data.root={root} is neither a folder nor a tar or zip archive by its name: {LAYOUT}")


def checked_classes(root: Path, files: Sequence[ImageFile]) -> tuple[str, ...]:
    """The sorted names of the classes. Raises UserError where the two splits can't be used together."""
    train, test = ({file.class_name for file in files if file.split == split} for split in ("train", "test"))
    for split, classes in (("train", train), ("test", test)):
        if not classes:
            raise UserError(f"{root} has no images in {split}/<class>/: {LAYOUT}")
    for have, lack, classes in (("train", "test", train - test), ("test", "train", test - train)):
        if classes:
            raise UserError(
                f"{root}: {', '.join(sorted(classes))} has images in {have} but none in {lack}: every class needs both"
            )
    if len(train) < 2:
        raise UserError(f"{root} has only the class {', '.join(train)}: at least two are needed")
    return tuple(sorted(train))
