"""Listing of the labeled images in a folder or archive.

The layout is `train/<class>/*` with `val/<class>/*` and `test/<class>/*` beside it, as far as they are there; or
`<class>/*` alone.
"""

import errno
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from jaxtyping import Int64

from litlab.data.archive import MAX_MEMBER_BYTES, archive_members, is_archive
from litlab.data.name_encoding import find_encodings
from litlab.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp")
_LAYOUT = (
    "expected train/<class>/*, with val/<class>/* and test/<class>/* if you have them, or <class>/* alone, with JPEG, "
    "PNG or WebP images"
)
# Of file managers, network drives and recycle bins, besides hidden ones.
_IGNORED = {"@eadir", "#recycle", "$recycle.bin", "__macosx", "desktop.ini", "lost+found", "thumbs.db"}
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # Python's surrogates for bytes that can't be decoded
_MAX_DEPTH = 3  # of the folders around the images
_MAX_NAMES = 10  # in a message

SplitName = Literal["train", "val", "test"]
_SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Layout:
    """Settings that decide which images are listed.

    Attributes:
        folders: Names of the folders of each split, in any case.
        classes: Names of the classes to use, by label; None for all, sorted.
        encoding: Encoding of the names in a zip archive that does not tell it; None to find it.
        trained_classes: Classes of a trained network, by label, to list images for its evaluation: some of the classes
            may be absent, and so may the training images. None for a data set to train on.
    """

    folders: Mapping[str, Sequence[str]]
    classes: tuple[str, ...] | None = None
    encoding: str | None = None
    trained_classes: tuple[str, ...] | None = None


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
    """Labeled images.

    Attributes:
        name: Name of the data set.
        class_names: Names of the classes, by label.
        train: All images without those of a test folder; those of a validation folder come last.
        test: Images of a test folder.
        num_val: Number of images of a validation folder.
        notes: Sentences on what was left out.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split
    num_val: int
    notes: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, layout: Layout) -> "ImageListing":
        """List the images of a folder or archive.

        Raises:
            UserError: for files and classes that can't be used, naming them.
        """
        found = _find_images(root, layout)
        images, notes = found.images, found.notes()
        class_names = _class_names(root, layout, found)
        if not found.is_split and layout.trained_classes is None:
            notes.insert(0, f"no folders of splits: the folders are the classes ({_shortened(class_names)})")
        labels = {name: label for label, name in enumerate(class_names)}
        if others := [image for image in images if image.class_name not in labels]:
            names = _shortened({image.class_name for image in others})
            notes.append(f"left out: {_count(len(others), 'image')} of classes not used ({names})")

        def select(*splits: str) -> Split:
            selected = [image for split in splits for image in images if image.split == split]
            selected = [image for image in selected if image.class_name in labels]
            paths = np.array([image.path.encode() for image in selected], dtype=None if selected else "S1")
            return Split(paths, np.array([labels[image.class_name] for image in selected], dtype=np.int64))

        train, test, num_val = select("train", "val"), select("test"), len(select("val").paths)
        if not len(train.paths):  # only a test folder, to evaluate a network
            train, test = test, train
        name = root.name.split(".")[0] if is_archive(root) else root.name
        return cls(name, class_names, train, test, num_val, tuple(notes))


@dataclass(frozen=True, order=True, slots=True)
class ImageFile:
    """Split, class and name of an image, by which images are sorted, with its path in the folder or archive."""

    split: str
    class_name: str
    name: str
    path: str


def list_images(root: Path, layout: Layout) -> list[ImageFile]:
    """List the images of all splits, sorted; those of classes without a split are of "train".

    Raises:
        UserError: for what is not a plain file, for a path that occurs twice, and for folders of no known layout.
    """
    return _find_images(root, layout).images


def file_stamps(root: Path, layout: Layout) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and time of change in ns of an archive, or of the splits and images of a folder."""
    if not root.is_dir():
        status = root.stat()
        return [(root.name, status.st_size, status.st_mtime_ns)]
    tree = _Folder(root)
    folders, _ = _find_split_folders(root, tree, layout)
    files = (file for folder in folders.values() for file in tree.walk(folder))
    entries = ((path, entry.stat()) for path, entry in files if _is_image(path))
    images = [(path, status.st_size, status.st_mtime_ns) for path, status in entries]
    return [*((f"{folder}/", 0, 0) for folder in folders.values()), *images]


def check_root(root: Path) -> None:
    """Raise a UserError unless a path is a folder or an archive."""
    with _unreadable(root):
        is_there = root.exists()
    if not is_there:
        raise UserError(f"data.root={root} does not exist: {_LAYOUT}, in a folder or an archive")
    if not root.is_dir() and not is_archive(root):
        raise UserError(f"data.root={root} is neither a folder nor a tar or zip archive by its name: {_LAYOUT}")


def normalized(class_name: str) -> str:
    """Compose the accented letters of a class name, which macOS stores in parts, so that names match on any machine."""
    return unicodedata.normalize("NFC", class_name)


def is_ignored(name: str) -> bool:
    """Tell if a file or folder is hidden, or made by a file manager or network drive."""
    return name.startswith(".") or name.lower() in _IGNORED


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


class _Folder:
    """Folders and files below a folder; paths are relative to it, and links are followed."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def folders(self, parent: str) -> list[str]:
        """Return the sorted names of the folders in a folder."""
        with _unreadable(self._root / parent):
            return [entry.name for entry in self._scan(parent) if entry.is_dir()]

    def files(self, parent: str) -> Iterator[tuple[str, str]]:
        """Yield the path of each file below a folder, twice: names of folders are encoded as those of files."""
        return ((path, path) for path, _ in self.walk(parent))

    def walk(self, parent: str) -> "Iterator[tuple[str, os.DirEntry[str]]]":
        """Yield the path of each file below a folder with its entry; images are checked."""
        with _unreadable(self._root / parent):
            entries = [(_join(parent, entry.name), entry, entry.is_dir()) for entry in self._scan(parent)]
            for path, entry, is_folder in entries:
                if not is_folder and _is_image(path):
                    check_file(entry.path, entry.stat())
        for path, entry, is_folder in entries:
            if is_folder:
                yield from self.walk(path)
            else:
                yield path, entry

    def _scan(self, parent: str) -> "list[os.DirEntry[str]]":
        with os.scandir(self._root / parent) as entries:
            return sorted((entry for entry in entries if not is_ignored(entry.name)), key=lambda entry: entry.name)


class _Archive:
    """Folders and files of an archive, in the way of `_Folder`."""

    def __init__(self, root: Path, encoding: str | None) -> None:
        paths: list[str] = []
        raw_names: dict[int, bytes] = {}
        from_unix = False
        for member in archive_members(root):
            if member.raw_name is not None:
                raw_names[len(paths)] = member.raw_name
                from_unix = from_unix or member.from_unix
            paths.append(str(member.path))
        decode = _name_decoder(root, raw_names.values(), encoding, from_unix=from_unix)
        names = [decode(raw_names[number]) if number in raw_names else path for number, path in enumerate(paths)]
        self._files = [
            (path, name) for path, name in zip(paths, names, strict=True) if not any(map(is_ignored, name.split("/")))
        ]
        self._folders: dict[str, set[str]] = {"": set()}
        for folder in {name.rpartition("/")[0] for _, name in self._files}:
            parent = ""
            for name in filter(None, folder.split("/")):
                self._folders[parent].add(name)
                parent = f"{parent}/{name}" if parent else name
                self._folders.setdefault(parent, set())

    def folders(self, parent: str) -> list[str]:
        """Return the sorted names of the folders in a folder."""
        return sorted(self._folders[parent])

    def files(self, parent: str) -> Iterator[tuple[str, str]]:
        """Yield the path of each file below a folder, as the archive's reader names it, and in the right encoding."""
        start = f"{parent}/" if parent else ""
        return ((path, name) for path, name in self._files if name.startswith(start))


@contextmanager
def _unreadable(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = str(error.filename or path)
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):  # a link to a folder around it, followed to the end
            raise UserError(f"{name[:200]}... leads back to itself by a link: remove the link") from error
        raise UserError(f"{name} can't be read: {error.strerror}") from error


def _name_decoder(
    root: Path, raw_names: Collection[bytes], encoding: str | None, *, from_unix: bool
) -> Callable[[bytes], str]:
    """Return the function that decodes the names of an archive that does not tell their encoding.

    Only names of folders have to be right, which are those of the classes.
    """
    folders = {part for name in raw_names for part in name.split(b"/")[:-1] if not part.isascii()}
    if encoding is None and folders:
        readings = find_encodings(folders, from_unix=from_unix)
        if len(readings) > 1:
            choices = ", ".join(f"{name} for {text}" for name, text in readings.items())
            raise UserError(
                f"{root} does not tell how the names of its folders are encoded: set data.encoding to the one that "
                f"reads a name right ({choices}), or to another one of Python's; or pack it again with names in UTF-8"
            )
        (encoding,) = readings

    def decode(name: bytes) -> str:
        folder, slash, file_name = name.rpartition(b"/")
        try:
            text = folder.decode(encoding or "cp437")
            path = PurePosixPath(f"{text}{slash.decode()}{file_name.decode(encoding or 'cp437', 'backslashreplace')}")
        except (LookupError, UnicodeError) as error:
            raise UserError(f"data.encoding={encoding} can't be that of the names in {root}: {error}") from error
        if not text.isprintable():
            raise UserError(f"data.encoding={encoding} gives control characters in {root} ({text[:80]!a}): set another")
        return str(path)

    return decode


@dataclass(frozen=True)
class _FoundImages:
    """Images of a folder or archive, and what was found beside them.

    Attributes:
        images: All images, sorted.
        folders: Path of the folder of each split; that of the classes as "train" if there are no splits.
        is_split: Whether there are folders of splits.
        others: Number of files in class folders that are no images, by the suffix.
        loose: Number of images outside of class folders, by the path of their folder.
        empty: Paths of class folders without images.
    """

    images: list[ImageFile]
    folders: dict[SplitName, str]
    is_split: bool
    others: Counter[str]
    loose: Counter[str]
    empty: list[str]

    def notes(self) -> list[str]:
        """Return a sentence for each kind of what is left out."""
        notes = []
        if self.others:
            files = _count(self.others.total(), "file")
            notes.append(f"left out: {files} ({_shortened(self.others)}): JPEG, PNG and WebP are read")
        for folder, number in self.loose.items():
            notes.append(f"left out: {_count(number, 'image')} of {folder or 'data.root'} that are in no class folder")
        if self.empty and self.images:
            notes.append(f"left out: class folders without images ({_shortened(self.empty)})")
        return notes


def _find_images(root: Path, layout: Layout) -> _FoundImages:
    tree = _Folder(root) if root.is_dir() else _Archive(root, layout.encoding)
    folders, is_split = _find_split_folders(root, tree, layout)
    images: dict[ImageFile, None] = {}
    others, loose, empty = Counter[str](), Counter[str](), []
    for split, folder in folders.items():
        start = len(folder) + 1 if folder else 0
        for path, name in tree.files(folder):
            class_name, slash, file_name = name[start:].partition("/")
            if not _is_image(name):
                if slash:
                    others[PurePosixPath(name).suffix.lower() or "without a suffix"] += 1
                continue
            if not slash:
                loose[folder] += 1
                continue
            image = ImageFile(split, normalized(class_name), file_name, path)
            if image in images:  # one would overwrite the other
                raise UserError(f"{root} holds {image.path} twice: remove one of them")
            images[image] = None
        filled = {image.class_name for image in images if image.split == split}
        empty += [_join(folder, name) for name in tree.folders(folder) if normalized(name) not in filled]
    return _FoundImages(sorted(images), folders, is_split, others, loose, empty)


def _find_split_folders(root: Path, tree: "_Folder | _Archive", layout: Layout) -> tuple[dict[SplitName, str], bool]:
    """Find the folders of the splits in the root or in a single folder around them; see `_FoundImages`."""
    parent = ""
    for depth in range(_MAX_DEPTH + 1):
        names = tree.folders(parent)
        if found := _match_splits(root, parent, names, layout):
            return found, True
        if len(names) != 1 or depth == _MAX_DEPTH or not tree.folders(_join(parent, names[0])):
            break
        parent = _join(parent, names[0])
    for name in names:
        if _match_splits(root, _join(parent, name), tree.folders(_join(parent, name)), layout):
            raise UserError(
                f"data.root={root} has no folder train, but {root / parent / name} has folders of splits: "
                "set data.root to it, or to an archive of it"
            )
    if layout.trained_classes is None:
        _check_not_one_split(root, layout)
    if not names:
        raise UserError(f"data.root={root} has no folders: {_LAYOUT}")
    return {"train": parent}, False


def _match_splits(root: Path, parent: str, names: Iterable[str], layout: Layout) -> dict[SplitName, str]:
    """Find the folder of each split by its name in any case."""
    found: dict[SplitName, str] = {}
    for split in _SPLITS:
        known = {name.lower() for name in layout.folders[split]}
        matching = [name for name in names if name.lower() in known]
        if len(matching) > 1:
            raise UserError(
                f"{root / parent} has the folders {' and '.join(matching)} for one split: remove one, or name "
                f"the one to use, as in data.folders.{split}=[{matching[0]}]"
            )
        if matching:
            path = _join(parent, matching[0])
            if other := next((name for name, folder in found.items() if folder == path), None):
                raise UserError(
                    f"{root / path} is the folder of two splits, {other} and {split}: change data.folders.{other}, or "
                    f"set data.folders.{split}=[]"
                )
            found[split] = path
    return found


def _check_not_one_split(root: Path, layout: Layout) -> None:
    """Raise a UserError if a folder of classes is one of several splits."""
    for split in _SPLITS:
        beside = [name for other in _SPLITS if other != split for name in layout.folders[other]]
        siblings = [root.parent / form for name in beside for form in (name, name.capitalize(), name.upper())]
        if root.name.lower() in {name.lower() for name in layout.folders[split]} and any(map(os.path.isdir, siblings)):
            raise UserError(
                f"data.root={root} is the folder of one split: set data.root={root.parent}, or data.folders.{split}=[] "
                "to split this one alone"
            )


def check_file(path: str, status: os.stat_result) -> None:
    """Raise a UserError unless a path is a plain file of at most `MAX_MEMBER_BYTES` with a name in UTF-8."""
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
        raise UserError(f"{path} is not a plain file: remove it")
    if status.st_size > MAX_MEMBER_BYTES:
        raise UserError(f"{path} has {status.st_size:,} bytes, more than an image could need: remove it")
    if not path.isascii() and _NOT_UTF8.search(path):
        raise UserError(f"{path!a} has a name that is not UTF-8: rename it")


def _class_names(root: Path, layout: Layout, found: _FoundImages) -> tuple[str, ...]:
    """Return the names of the classes, by label.

    Raises:
        UserError: unless each class has images in each split, or is named by `data.classes`.
    """
    present = {split: {image.class_name for image in found.images if image.split == split} for split in found.folders}
    if layout.trained_classes is not None:
        return _trained_classes(root, layout, present)
    for split, classes in list(present.items()):
        if not classes and split != "train" and found.loose[found.folders[split]]:
            del present[split]  # images without labels, as of a competition
        elif not classes:
            way_on = "" if split == "train" else f"; or set data.folders.{split}=[]"
            raise UserError(_without_images(root, found, split) + way_on)
    if not found.is_split and all("/" in image.name for image in found.images):
        raise UserError(
            f"data.root={root} has images in folders within folders only, such as {found.images[0].path}: set "
            "data.root to the folder whose folders are the classes; or name it train, if such a folder is one class"
        )
    if "train" not in present:
        raise UserError(f"data.root={root} has no folder train: {_LAYOUT}")
    trained = present["train"]
    if layout.classes is not None:
        _check_chosen(root, layout.classes, found, present)
        return layout.classes
    for split in [split for split in present if split != "train"]:
        pairs: tuple[tuple[SplitName, SplitName], ...] = (("train", split), (split, "train"))
        for split_with, split_without in pairs:
            if alone := present[split_with] - present[split_without]:
                folders = found.folders
                raise UserError(
                    f"{root}: {_shortened(alone)} has images in {folders[split_with]} but none in "
                    f"{folders[split_without]}: every class needs both, unless data.classes names the classes to use: "
                    f"{_classes_override(trained - alone)} leaves it out"
                    + (f", {_classes_override(trained)} keeps it" if split_with == "train" else "")
                )
    if len(trained) < 2:
        raise UserError(f"{root} has only the class {', '.join(trained)}: at least two are needed")
    return tuple(sorted(trained))


def _check_chosen(
    root: Path, classes: tuple[str, ...], found: _FoundImages, present: dict[SplitName, set[str]]
) -> None:
    """Raise a UserError unless `data.classes` can be used."""
    if len(set(classes)) < len(classes):
        raise UserError(f"data.classes=[{','.join(classes)}]: a class is named twice")
    if lacking := set(classes) - present["train"]:
        available = _shortened(present["train"])
        raise UserError(f"data.classes: no training images of {_shortened(lacking)} in {root}; it has {available}")
    for split in present:
        if present[split].isdisjoint(classes):
            raise UserError(
                f"data.classes: {root} has no images of these classes in {found.folders[split]}: add some, or set "
                f"data.folders.{split}=[]"
            )


def _trained_classes(root: Path, layout: Layout, present: dict[SplitName, set[str]]) -> tuple[str, ...]:
    assert layout.trained_classes is not None
    classes = present.get("test") or set().union(*present.values())
    if not classes.intersection(layout.trained_classes):
        raise UserError(
            f"{root} has no images in test/<class>/ of a class that the network was trained on "
            f"({_shortened(layout.trained_classes)})"
        )
    if layout.classes is None and (unknown := classes.difference(layout.trained_classes)):
        raise UserError(
            f"{root}: the network was not trained on the class {_shortened(unknown)}, but on "
            f"{_shortened(layout.trained_classes)}: rename the folder or move it away"
        )
    return layout.trained_classes


def _without_images(root: Path, found: _FoundImages, split: SplitName) -> str:
    folder = found.folders[split]
    others = f" ({'; '.join(notes)})" if (notes := found.notes()) else ""
    return f"{root} has no images in {folder + '/' if folder else ''}<class>/{others}: {_LAYOUT}"


def _classes_override(names: Collection[str]) -> str:
    if len(names) > _MAX_NAMES:
        return "data.classes=[...]"
    quoted = (name if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) else f'"{name}"' for name in sorted(names))
    return f"'data.classes=[{','.join(quoted)}]'"


def _shortened(names: Collection[str]) -> str:
    ordered = sorted(names) if isinstance(names, set | Counter) else list(names)
    ordered = [name if name.isprintable() else ascii(name) for name in ordered]
    more = f" and {len(ordered) - _MAX_NAMES:,} more" if len(ordered) > _MAX_NAMES else ""
    return ", ".join(ordered[:_MAX_NAMES]) + more


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _is_image(path: str) -> bool:
    return path.lower().endswith(SUFFIXES)


def _join(parent: str, name: str) -> str:
    return f"{parent}/{name}" if parent else name
