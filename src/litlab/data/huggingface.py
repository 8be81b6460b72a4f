"""Data sets of Hugging Face, from its hub or a local folder, by the optional package `datasets`."""

import hashlib
import importlib
import os
import pkgutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import numpy as np
from jaxtyping import Int64

from litlab.data.arrays import ArrayCache, DecodingPlan, ImageArrays
from litlab.data.file_module import FileDataModule, FileSettings, height_and_width
from litlab.data.image_decoder import MAX_BIT_DEPTH, DecodingReport, UnreadableImage, decode_contents, read_file
from litlab.data.image_listing import OutputRows, check_file
from litlab.errors import UserError
from litlab.runs.terminal import printable

_SAVED = ("dataset_dict.json", "state.json")  # files of `save_to_disk`
_NO_CODE_FROM = 4  # version of `datasets`; older ones run the code of a data set
_MAX_LISTED = 20  # images in a message
_SPLITS = ("train", "val", "test")


class HuggingFace(FileDataModule):
    """Images with classes in two columns of a data set that `datasets` can load; no code of the data set is run.

    Args:
        path: Folder of images in folders named after their classes, of parquet files, or of what `save_to_disk` wrote;
            or the id of a data set on the hub.
        name: Configuration of a data set that has several; None for its default.
        revision: Commit, branch or tag on the hub; None for the newest.
        splits: Names of the splits for "train", "val" and "test"; the first one that is there is used.
        image_column: Name of the column of images.
        label_column: Name of the column of classes: ClassLabel, texts or integers.
        image_size: Height and width in pixels that all images are resized to; one number for both.
        bit_depth: Bits that 16-bit images use, 8 to 16; larger values are white. None for as many as the
            largest value of the training images has.
        settings: Other arguments, see `FileSettings`.
    """

    without_val = "data.splits.val=[]"

    def __init__(
        self,
        *,
        path: str,
        name: str | None,
        revision: str | None,
        splits: Mapping[str, Sequence[str]],
        image_column: str,
        label_column: str,
        image_size: int | Sequence[int],
        bit_depth: int | None,
        **settings: Unpack[FileSettings],
    ) -> None:
        super().__init__(**settings)
        self.path = path
        self.configuration = name
        self.revision = revision
        self.splits = splits
        self.image_column = image_column
        self.label_column = label_column
        self.image_size = height_and_width(image_size)
        self.bit_depth = bit_depth

    @property
    def _key(self) -> str:
        settings = self._name, self.image_column, self.label_column, self.image_size, self.resize, self.bit_depth
        content = repr((settings, self._stamps()))
        return f"huggingface-{hashlib.sha256(content.encode()).hexdigest()[:16]}"

    @property
    def _name(self) -> str:
        """Name of the data set: that of the folder, or the id on the hub."""
        return printable(Path(self.path).name if Path(self.path).expanduser().is_dir() else self.path)

    def prepare_data(self) -> None:
        """Decode all images unless the cache has them.

        Raises:
            UserError: if the data set can't be loaded, or has no such columns, or has images that can't be decoded.
        """
        ArrayCache(self.cache).build(self._key, lambda: self._decoding_plan(self.bit_depth))

    def load_images(self) -> ImageArrays:
        """Map the arrays in the cache into memory.

        Raises:
            LookupError: if `prepare_data` was not called.
        """
        return ArrayCache(self.cache).load(self._key)

    @cached_property
    def _loaded(self) -> Mapping[str, Any]:
        """The data set's own splits by their names, each a `datasets.Dataset`."""
        datasets = _import_datasets()
        folder = Path(self.path).expanduser().absolute()
        readers = importlib.import_module("datasets.packaged_modules")  # each is also a name that load_dataset takes
        if not folder.is_dir() and self.path in {module.name for module in pkgutil.iter_modules(readers.__path__)}:
            raise UserError(
                f"data.path={self.path}: is one of the readers of files in datasets, expected a folder or the id of a "
                "data set on the hub; for files, set data.path to their folder"
            )
        try:
            if any((folder / file).is_file() for file in _SAVED):
                loaded = datasets.load_from_disk(str(folder))
            else:
                path = str(folder) if folder.is_dir() else self.path
                loaded = datasets.load_dataset(path, self.configuration, revision=self.revision)
        except Exception as error:  # of all kinds: no such data set, no network, damaged files
            raise UserError(
                f"data.path={self.path}: datasets can't load it ({' '.join(str(error).split())}). Expected a folder or "
                "the id of a data set on the hub; without a network, one that HF_HOME holds, and HF_HUB_OFFLINE=1"
            ) from error
        return loaded if isinstance(loaded, dict) else {"train": loaded}

    @cached_property
    def _parts(self) -> dict[str, Any]:
        """The splits that are used, by "train", "val" and "test"."""
        parts: dict[str, Any] = {}
        purposes: dict[str, str] = {}
        for split in _SPLITS:
            if (name := next((name for name in self.splits[split] if name in self._loaded), None)) is not None:
                if other := purposes.get(name):
                    raise UserError(
                        f"data.path={self.path}: the split {name} would be both {other} and {split}: set "
                        f"data.splits.{split}=[], or another data.splits.{other}"
                    )
                purposes[name], parts[split] = split, self._loaded[name]
        if "train" not in parts or not len(parts["train"]):
            raise UserError(
                f"data.path={self.path}: has no training images; its splits are {', '.join(self._loaded)}, those of "
                f"data.splits.train {', '.join(self.splits['train'])}"
            )
        for column in (self.image_column, self.label_column):
            for part in parts.values():
                if column not in part.column_names:
                    key = "image_column" if column == self.image_column else "label_column"
                    columns = ", ".join(f"{name} ({type(kind).__name__})" for name, kind in part.features.items())
                    raise UserError(f"data.{key}={column}: {self.path} has the columns {columns}; set data.{key}=NAME")
        return parts

    def _stamps(self) -> list[Any]:
        """Return what tells the content of each split; the fingerprint alone is a text in a folder of save_to_disk."""
        folder = Path(self.path).expanduser().absolute()
        stamps = []
        for split, part in self._parts.items():
            files = [Path(file["filename"]) for file in part.cache_files]
            status = [file.stat() for file in files if file.is_relative_to(folder)]
            times = [(file.st_size, file.st_mtime_ns) for file in status]
            names = getattr(part.features[self.label_column], "names", None)
            stamps.append((split, part._fingerprint, len(part), names, times))  # there is no public fingerprint
        return [list(self._loaded), stamps]

    def _labels(self) -> tuple[tuple[str, ...], dict[str, Int64[np.ndarray, " _"]], list[str]]:
        """Return the names of the classes, the labels of each split, and notes on what is not used."""
        column, parts = self.label_column, self._parts
        names = getattr(parts["train"].features[column], "names", None)  # of a ClassLabel
        values = {
            split: _with_names(
                part.select_columns([column])[:][column], getattr(part.features[column], "names", None) or names
            )
            for split, part in parts.items()
        }
        for split, of_split in values.items():
            kinds = (str, int) if split == "train" else (str, int, type(None))  # null: no label
            if (other := next((value for value in of_split if not isinstance(value, kinds)), ...)) is not ...:
                raise UserError(
                    f"data.label_column={column}: expected a text or an integer for each image, found {other!r} in the "
                    f"{split} split"
                )
        classes = names or sorted(set(values["train"]), key=lambda value: (isinstance(value, str), value))
        numbers = {value: number for number, value in enumerate(classes)}
        notes: list[str] = []
        labels = {split: np.zeros(0, dtype=np.int64) for split in _SPLITS}
        for split, of_split in values.items():
            if split != "train" and of_split and set(of_split) <= {-1, None}:  # as those of a competition
                notes.append(f"not used: the images of {split}, which have no labels")
                continue
            if (other := next((value for value in of_split if value not in numbers), ...)) is not ...:
                known = f"one of {', '.join(map(str, classes))}"
                raise UserError(f"data.label_column={column}: expected {known}; found {other!r} in the {split} split")
            labels[split] = np.array([numbers[value] for value in of_split], dtype=np.int64)
        if others := [name for name, part in self._loaded.items() if all(part is not used for used in parts.values())]:
            notes.append(f"not used: the splits {', '.join(others)}")
        return tuple(map(str, classes)), labels, notes

    def _decoding_plan(self, bit_depth: int | None) -> DecodingPlan:
        names, labels, notes = self._labels()
        paths = {
            split: np.array([f"{split}/{row}" for row in range(len(of_split))], dtype=bytes)
            for split, of_split in labels.items()
        }
        num_own = len(labels["train"])

        def fill(train_images: np.ndarray, train_labels: np.ndarray, *test: np.ndarray) -> DecodingPlan | None:
            test_images, test_labels = test
            train_labels[:], test_labels[:] = np.concatenate([labels["train"], labels["val"]]), labels["test"]
            outputs = OutputRows(
                (paths["train"], train_images[:num_own]), (paths["val"], train_images[num_own:]),
                (paths["test"], test_images),
            )  # fmt: skip
            report = DecodingReport(measured=OutputRows((paths["train"], train_labels[:num_own, None])))
            unread: dict[str, str] = {}
            decode_contents(self._contents(paths, unread), outputs, bit_depth or MAX_BIT_DEPTH, report, self.resize)
            report.unreadable |= unread
            if report.unreadable:
                lines = [printable(f"  {path} {reason}") for path, reason in report.unreadable.items()]
                more = [f"  and {len(lines) - _MAX_LISTED:,} more"] * (len(lines) > _MAX_LISTED)
                first = f"data.path={self.path}: {len(lines):,} images can't be used:"
                raise UserError("\n".join([first, *lines[:_MAX_LISTED], *more]))
            depth = None if report.max_value is None else max(8, report.max_value.bit_length())  # of 16-bit images
            return None if bit_depth is not None or depth is None else self._decoding_plan(depth)

        return DecodingPlan(
            name=self._name,
            class_names=names,
            image_shape=(3, *self.image_size),
            num_train=num_own + len(labels["val"]),
            num_test=len(labels["test"]),
            num_val=len(labels["val"]),
            notes=tuple(map(printable, notes)),
            fill=fill,
            bit_depth=bit_depth,
        )

    def _contents(self, paths: Mapping[str, np.ndarray], unread: dict[str, str]) -> Iterator[tuple[str, bytes]]:
        """Yield the path `SPLIT/ROW` and the file of each image; add the paths of others with the reason."""
        column, datasets = self.image_column, _import_datasets()
        for split, part in self._parts.items():
            try:
                images = part.select_columns([column]).cast_column(column, datasets.Image(decode=False))
            except Exception as error:  # of all kinds, of pyarrow's too
                raise UserError(
                    f"data.image_column={column}: expected a column of images, found "
                    f"{type(part.features[column]).__name__} in the {split} split"
                ) from error
            for path, row in zip(paths[split], images, strict=False):  # none, if a split has no labels
                try:
                    content = self._read(row[column] or {})
                except UnreadableImage as error:
                    unread[path.decode()] = str(error)
                else:
                    yield path.decode(), content

    def _read(self, image: Mapping[str, Any]) -> bytes:
        """Return the file of an image, which is in the data or has a path.

        Raises:
            UnreadableImage: if it is absent, or not a file of the data set.
        """
        if image.get("bytes") is not None:
            return bytes(image["bytes"])
        if image.get("path") is None:
            raise UnreadableImage("is absent (null)")
        path = Path(os.path.normpath(Path.cwd() / image["path"]))
        if not any(path.is_relative_to(folder) for folder in self._folders):
            raise UnreadableImage(f"is a path outside of data.path, {path}: write the images themselves into the data")
        try:
            check_file(str(path), path.stat())
            return read_file(path)
        except (OSError, ValueError) as error:  # of a path with a null byte, too
            raise UnreadableImage(f"can't be read: {error}") from error

    @cached_property
    def _folders(self) -> list[Path]:
        """Folders of files that the data may name: anywhere else they could be private, or a device without an end."""
        constants = importlib.import_module("huggingface_hub.constants")
        config = _import_datasets().config
        caches = config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, constants.HF_HUB_CACHE
        paths = [*caches, folder] if (folder := Path(self.path).expanduser()).is_dir() else caches
        return [Path(form(path)) for path in paths for form in (os.path.abspath, os.path.realpath)]


def _with_names(labels: Sequence[Any], names: Sequence[str] | None) -> list[Any]:
    """Replace the numbers of classes by their names, which may be in another order in another split."""
    if names is None:
        return list(labels)
    return [names[label] if isinstance(label, int) and 0 <= label < len(names) else label for label in labels]


def _import_datasets() -> Any:
    """Import the package `datasets`, which litlab does not need for anything else.

    Raises:
        UserError: if it is not installed, or too old, or hidden by another package of this name.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ModuleNotFoundError as error:
        raise UserError("data=huggingface needs the package datasets: pip install 'datasets>=4'") from error
    if not hasattr(datasets, "load_dataset"):
        place = next(iter(getattr(datasets, "__path__", [datasets.__file__])))
        raise UserError(f"{place} hides the package datasets of Hugging Face: rename it")
    if int(datasets.__version__.partition(".")[0]) < _NO_CODE_FROM:
        raise UserError(
            f"datasets {datasets.__version__} runs the code of a data set: pip install --upgrade 'datasets>=4'"
        )
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets
