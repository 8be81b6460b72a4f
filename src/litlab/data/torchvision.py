"""Data sets of torchvision for classification: by its own downloads and checks, decoded once."""

import hashlib
import os
import shutil
import socket
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Unpack, runtime_checkable

import numpy as np
import torchvision.datasets  # type: ignore[import-untyped]
from PIL import Image

from litlab.config.schema import TORCHVISION_OF_ANY_SIZE, TORCHVISION_VARIANTS
from litlab.data.arrays import ArrayCache, DecodingPlan, ImageArrays, announce
from litlab.data.file_module import FileDataModule, FileSettings, height_and_width
from litlab.data.image_decoder import image_pixels
from litlab.data.low_light import CACHE_PREFIX
from litlab.errors import UserError
from litlab.runs.lock import temporary_lock

_ARCHIVES = (".gz", ".tgz", ".tar", ".zip", ".xz", ".bz2", ".mat", ".h5")
_PREFIX = "torchvision-"  # of the entries of the cache
_CACHED = tuple(f"{dot}{prefix}" for prefix in (_PREFIX, CACHE_PREFIX) for dot in ("", "."))
_MAX_LISTED = 10  # classes in a message
_TIMEOUT_S = 30  # without a byte of a download; a firewall that drops packets would block forever


@dataclass(frozen=True)
class Source:
    """Arguments by which a class of torchvision gives the official splits, and what it does not know itself.

    Attributes:
        train: Arguments of the training split.
        val: Arguments of the validation split; None if there is none.
        test: Arguments of the test split; None if there is none with labels.
        classes: Names of the classes, if torchvision has none.
        first_label: Label of the first class.
        num_classes: Number of classes, if torchvision takes for the classes what it finds in the files.
        class_folder: Pattern of the folder of a class of the training split in the root, if torchvision numbers these
            folders but `classes` has the names.
        has_download: True if torchvision can download it.
    """

    train: Mapping[str, Any]
    val: Mapping[str, Any] | None = None
    test: Mapping[str, Any] | None = None
    classes: tuple[str, ...] = ()
    first_label: int = 0
    num_classes: int | None = None
    class_folder: str | None = None
    has_download: bool = True


_DIGITS = tuple("0123456789")
_WITHOUT_SPLITS = Source({})
_BY_TRAIN_FLAG = Source({"train": True}, test={"train": False})
_BY_SPLIT = Source({"split": "train"}, test={"split": "test"})
_WITH_VAL = replace(_BY_SPLIT, val={"split": "val"})
_WITHOUT_TEST = replace(_WITH_VAL, test=None)
_LAND_USES = (
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture", "PermanentCrop", "Residential",
    "River", "SeaLake",
)  # fmt: skip
_SIGNS = tuple(map(str, range(43)))
_EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
SOURCES = {
    "CIFAR10": _BY_TRAIN_FLAG,
    "CIFAR100": _BY_TRAIN_FLAG,
    "CLEVRClassification": replace(_WITHOUT_TEST, classes=(*"3456789", "10"), first_label=3),  # number of objects
    "Caltech101": replace(_WITHOUT_SPLITS, num_classes=101),
    "Caltech256": replace(_WITHOUT_SPLITS, num_classes=257),
    "Country211": replace(_BY_SPLIT, val={"split": "valid"}, num_classes=211),
    "DTD": replace(_WITH_VAL, num_classes=47),
    "EMNIST": _BY_TRAIN_FLAG,
    "EuroSAT": replace(_WITHOUT_SPLITS, classes=_LAND_USES, class_folder="eurosat/2750/{}"),
    "FER2013": replace(_BY_SPLIT, classes=_EMOTIONS, has_download=False),
    "FGVCAircraft": _WITH_VAL,
    "FashionMNIST": _BY_TRAIN_FLAG,
    "Flowers102": _WITH_VAL,
    "Food101": replace(_BY_SPLIT, num_classes=101),
    "GTSRB": replace(_BY_SPLIT, classes=_SIGNS, class_folder="gtsrb/GTSRB/Training/{:0>5}"),
    "Imagenette": replace(_WITHOUT_TEST, num_classes=10),
    "KMNIST": _BY_TRAIN_FLAG,
    "MNIST": _BY_TRAIN_FLAG,
    "OxfordIIITPet": Source({"split": "trainval"}, test={"split": "test"}, num_classes=37),
    "PCAM": replace(_WITH_VAL, classes=("normal", "tumor")),
    "QMNIST": _BY_TRAIN_FLAG,
    "RenderedSST2": _WITH_VAL,
    "SEMEION": replace(_WITHOUT_SPLITS, classes=_DIGITS),
    "STL10": _BY_SPLIT,
    "SVHN": replace(_BY_SPLIT, classes=_DIGITS),
    "StanfordCars": replace(_BY_SPLIT, has_download=False),
    "USPS": replace(_BY_TRAIN_FLAG, classes=_DIGITS),
}


@runtime_checkable
class Dataset(Protocol):
    """Images with labels, as torchvision's classes give them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Image.Image, int]: ...


class Torchvision(FileDataModule):
    """Data set of `torchvision.datasets`.

    A data set of grayscale images has one channel, all others three.

    Args:
        name: Name of the class in `torchvision.datasets`, one of `SOURCES`.
        variant: Variant of a data set that has several, see `TORCHVISION_VARIANTS`; None for torchvision's default.
        root: Folder of the files in torchvision's layout; only read, unless they have to be downloaded. Once the cache
            has the images, it may be absent; files that were replaced are decoded again.
        image_size: Height and width in pixels that all images are resized to, one number for both; None for their own,
            if all have the same.
        settings: Other arguments, see `FileSettings`.
    """

    def __init__(
        self,
        *,
        name: str,
        variant: str | int | None,
        root: str,
        image_size: int | Sequence[int] | None,
        **settings: Unpack[FileSettings],
    ) -> None:
        super().__init__(**settings)
        self.dataset = name
        self.variant = variant
        self.root = Path(root).expanduser().absolute()
        self.image_size = None if image_size is None else height_and_width(image_size)

    @cached_property
    def _key(self) -> str:
        """The key of the files in `root`, without any that of the newest entry; kept, whatever comes into it later."""
        content = repr((self.dataset, self.variant, str(self.root), self.image_size, self.resize))
        key = f"{_PREFIX}{self.dataset}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        if (stamp := self._stamp()) is not None:
            return f"{key}-{stamp}"
        entries = sorted(self.cache.glob(f"{key}-*"), key=lambda entry: entry.stat().st_mtime_ns)
        return entries[-1].name if entries else key

    def _stamp(self) -> str | None:
        """Return a hash of path, size and time of change of each file in `root`, also behind links; None without any.

        A cache in it, and what other processes download, do not count.
        """
        cache = Path(os.path.realpath(self.cache))
        unfinished = (f".{self.root.name}.part", f".{self.root.name}.lock")
        files, walked = [], set()
        for parent, folders, names in os.walk(self.root, followlinks=True):
            place = Path(os.path.realpath(parent))
            if place in walked:  # by a link
                folders.clear()
                continue
            walked.add(place)
            own = (*unfinished, *_CACHED) if place == cache else unfinished
            folders[:] = sorted(name for name in folders if place / name != cache and not name.startswith(own))
            for name in names:
                if not name.startswith(own):
                    status = _status(Path(parent, name))
                    files.append((os.path.relpath(parent, self.root), name, status.st_size, status.st_mtime_ns))
        return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()[:16] if files else None

    def prepare_data(self) -> None:
        """Decode the images unless the cache has them; download the files if they are not in `root`.

        Raises:
            UserError: if the files are damaged, can't be downloaded or can't be written.
        """
        cache = ArrayCache(self.cache)
        try:
            cache.load(self._key)
        except LookupError:
            self._find_splits()
            del self._key  # a download changes it
            cache.build(self._key, self._decoding_plan)

    def load_images(self) -> ImageArrays:
        """Map the arrays in the cache into memory.

        Raises:
            LookupError: if `prepare_data` was not called.
        """
        return ArrayCache(self.cache).load(self._key)

    def _decoding_plan(self) -> DecodingPlan:
        train, val, test = self._find_splits()
        first, _ = self._read(train, 0)
        class_names = self._check_classes({"training": train, "validation": val, "test": test})
        is_gray = first.mode == "L" and self.dataset not in TORCHVISION_OF_ANY_SIZE
        height, width = self.image_size or (first.height, first.width)

        def fill(train_images: np.ndarray, train_labels: np.ndarray, *test_arrays: np.ndarray) -> None:
            num_train, (test_images, test_labels) = len(train), test_arrays
            self._decode(train, train_images[:num_train], train_labels[:num_train])
            self._decode(val, train_images[num_train:], train_labels[num_train:])
            self._decode(test, test_images, test_labels)

        return DecodingPlan(
            name=self.dataset if self.variant is None else f"{self.dataset} ({self.variant})",
            class_names=class_names,
            image_shape=(1 if is_gray else 3, height, width),
            num_train=len(train) + len(val),
            num_test=len(test),
            num_val=len(val),
            fill=fill,
        )

    def _check_classes(self, splits: Mapping[str, Dataset]) -> tuple[str, ...]:
        """Return the names of the classes; torchvision numbers those that it finds, in each split by itself.

        Raises:
            UserError: if a class is missing, by which the others would get wrong labels.
        """
        source = SOURCES[self.dataset]
        remedy = "copy them, or delete the folder to download the data again"
        folders = [source.class_folder.format(name) for name in source.classes] if source.class_folder else []
        if missing := [folder for folder in folders if not (self.root / folder).is_dir()]:
            raise UserError(f"{self.root}: {self.dataset} lacks the folders of {_listed(missing)}: {remedy}")
        names = {split: _classes(dataset, source)[0] for split, dataset in splits.items() if len(dataset)}
        known = sorted({name for of_split in names.values() for name in of_split})
        for split, of_split in names.items():
            if missing := [name for name in known if name not in of_split]:
                raise UserError(f"{self.root}: the {split} split of {self.dataset} lacks {_listed(missing)}: {remedy}")
        if source.num_classes not in (None, len(known)):
            raise UserError(
                f"{self.root}: {self.dataset} has {len(known)} classes in these files, expected {source.num_classes}: "
                "copy those that are missing and remove others, or delete the folder to download the data again"
            )
        return names["training"]

    def _decode(self, dataset: Dataset, images: np.ndarray, labels: np.ndarray) -> None:
        """Decode all images of a split into an array, n c h w, and their labels into another one."""
        if not len(dataset):
            return
        names, first_label = _classes(dataset, SOURCES[self.dataset])
        num_channels, *size = images.shape[1:]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata
            for row in range(len(images)):
                image, label = self._read(dataset, row)
                images[row] = image_pixels(image, (size[0], size[1]), resize=self.resize)[:num_channels]
                labels[row] = label - first_label
        if not ((labels >= 0) & (labels < len(names))).all():
            raise UserError(f"{self.root}: {self.dataset} has labels other than those of its {len(names)} classes")

    def _read(self, dataset: Dataset, row: int) -> tuple[Image.Image, int]:
        """Read an image with its label.

        Raises:
            UserError: if its file is absent or damaged.
        """
        try:
            image, label = dataset[row]
            return image, int(label)
        except Exception as error:  # of torchvision, Pillow and others, of all kinds
            raise UserError(
                f"{self.root}: image {row} of {self.dataset} can't be read ({_reason(error)}): replace its file, or "
                "delete the folder to download the data again"
            ) from error

    def _find_splits(self) -> tuple[Dataset, Dataset, Dataset]:
        """Open training, validation and test split, and download the files if they are not there.

        Raises:
            UserError: if that is not possible.
        """
        problem = f"there are no files in {self.root}"
        with self._lock():
            if self.root.is_dir():
                try:
                    return self._open(self.root, download=False)
                except Exception as error:  # torchvision's classes raise all kinds for absent and damaged files
                    problem = f"its files in {self.root} can't be used ({_reason(error)})"
            if not SOURCES[self.dataset].has_download:
                raise UserError(
                    f"data.name={self.dataset}: {problem}, and torchvision can't download them: put them there by "
                    "hand, as the documentation of torchvision.datasets describes"
                )
            try:
                return self._download()
            except Exception as error:
                raise UserError(
                    f"data.name={self.dataset}: {problem}, and torchvision can't download them ({_reason(error)}). "
                    f"torchvision.datasets.{self.dataset}(FOLDER, download=True) makes such a folder on a machine with "
                    "a network: copy it, and set data.root to it"
                ) from error

    def _lock(self) -> AbstractContextManager[object]:
        """Let one process at a time download into `root`, unless both it and its parent are read-only."""
        try:
            self.root.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"data.root={self.root} can't be made: {error.strerror}; set another folder") from error
        writable = [folder for folder in (self.root.parent, self.root) if os.access(folder, os.W_OK)]
        return temporary_lock(writable[0] / f".{self.root.name}.lock") if writable else nullcontext()

    def _download(self) -> tuple[Dataset, Dataset, Dataset]:
        """Download into a new folder, and move what is complete into `root`: torchvision takes half a folder for whole.

        Archives that lie in `root` are used, as torchvision does.
        """
        announce(f"Downloading {self.dataset} by torchvision to {self.root}")
        is_new = not os.path.lexists(self.root)
        name = f".{self.root.name}.part"
        folder = self.root.with_name(name) if is_new else self.root / name  # on the same disk
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_TIMEOUT_S)
        try:
            shutil.rmtree(folder, ignore_errors=True)  # of a killed process
            folder.mkdir()
            if is_new:
                self._open(folder, download=True)
                folder.rename(self.root)
            else:
                _link_archives(self.root, folder)
                self._open(folder, download=True)
                _move_into(folder, self.root)
            return self._open(self.root, download=False)
        finally:
            socket.setdefaulttimeout(timeout)
            shutil.rmtree(folder, ignore_errors=True)

    def _open(self, root: Path, *, download: bool) -> tuple[Dataset, Dataset, Dataset]:
        source, make = SOURCES[self.dataset], getattr(torchvision.datasets, self.dataset)
        options: dict[str, Any] = {"root": str(root)}
        if self.variant is not None:
            options[TORCHVISION_VARIANTS[self.dataset].argument] = self.variant
        if source.has_download:
            options["download"] = download
        splits = [
            () if split is None else make(**options, **split) for split in (source.train, source.val, source.test)
        ]
        return splits[0], splits[1], splits[2]


def _status(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:  # a link to nothing
        return path.lstat()


def _link_archives(source: Path, target: Path) -> None:
    """Link the archives of a folder, down to where torchvision puts them, into another one."""
    for pattern in ("*", "*/*", "*/*/*"):
        for path in source.glob(pattern):
            if path.suffix in _ARCHIVES and path.is_file() and not path.is_relative_to(target):
                link = target / path.relative_to(source)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path)


def _move_into(source: Path, target: Path) -> None:
    """Move the content of a folder into another one: new folders as a whole, so that none is ever incomplete."""
    for path in source.iterdir():
        if path.is_dir() and (target / path.name).is_dir():
            _move_into(path, target / path.name)
        elif not path.is_symlink():
            path.replace(target / path.name)


def _classes(dataset: Dataset, source: Source) -> tuple[tuple[str, ...], int]:
    """Return the names of the classes, and the label of the first one."""
    if source.classes:
        return source.classes, source.first_label
    classes = getattr(dataset, "classes", None) or dataset.categories  # type: ignore[attr-defined]
    names = tuple(name if isinstance(name, str) else str(name[0]) for name in classes)  # of Imagenette, with synonyms
    return (names[1:], 1) if names[0] == "N/A" else (names, 0)  # no letter of EMNIST has label 0


def _listed(names: Sequence[str]) -> str:
    """Return how many classes there are, with the first names."""
    more = ", ..." if len(names) > _MAX_LISTED else ""
    return f"{len(names)} class{'es' * (len(names) > 1)} ({', '.join(names[:_MAX_LISTED])}{more})"


def _reason(error: Exception) -> str:
    """Return the message of somebody else's exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__
