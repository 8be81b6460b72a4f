"""Images that stay in their files: read and decoded anew in every epoch, by a torch DataLoader and its workers.

The batches are those of images in memory, bit for bit, for any number of ranks and workers and from any position on:
which rows a batch has is said by the same `BatchLoader`, and a worker only brings them.
"""

import ctypes
import json
import os
import signal
import threading
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litlab.data.archive import ZipReader
from litlab.data.arrays import Fingerprint, ImageContent, PixelCounts
from litlab.data.cache import announce
from litlab.data.image_files import Listing, Places, Split, decode_contents, decode_image, read_file
from litlab.data.loader import Batch, BatchLoader, BatchRows, Partners
from litlab.errors import UserError
from litlab.process.signals import blocked_signals
from litlab.runs.files import write_json
from litlab.runs.lock import file_lock


class ImageReader:
    """Reads and decodes images by the path they are stored under; to the same pixels as `decode_images`.

    Each process needs its own, as soon as it has read: what is open can't be shared.
    Raises UserError for a compressed or plain tar archive, which can only be read from front to back.
    """

    def __init__(self, root: Path, image_size: int) -> None:
        self.root = root
        self.image_size = image_size
        self._archive: ZipReader | None = None
        if not root.is_dir() and root.suffix.lower() != ".zip":
            raise UserError(
                f"data.storage=stream: {root} can only be read from front to back, not image by image: "
                "unpack it and set data.root to the folder, pack it as a zip archive, or set data.storage=memory"
            )

    def content(self, stored: str) -> bytes:
        """What a file holds. Raises UserError where it is gone."""
        if self.root.is_dir():
            return read_file(self.root / stored)
        if self._archive is None:
            self._archive = ZipReader(self.root)
        return self._archive.read(stored)

    def pixels(self, stored: str) -> UInt8[np.ndarray, "3 h w"]:
        """Raises UserError, naming the file, where it is gone, or no image any more."""
        where = str(self.root / stored) if self.root.is_dir() else f"{stored} in {self.root}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and of large images; too large ones are refused
            return decode_image(self.content(stored), (self.image_size, self.image_size), where)


_FORMAT = 1
_CHUNK_BYTES = 2**24  # of pixels that are held at a time
_MANY_IMAGES = 5_000  # read in seconds: worth a line, or it would look like a hang


@dataclass(frozen=True)
class StreamFacts:
    """Mean and deviation per channel of the training pixels in 0..1; SHA-256 over pixels and labels of both splits."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @classmethod
    def of(cls, reader: ImageReader, listing: Listing) -> "StreamFacts":
        """Reads every image. Raises UserError for the first that can't be decoded."""
        counts, digest = PixelCounts(3), Fingerprint()
        for split in (listing.train, listing.test):
            shape = (len(split.paths), 3, reader.image_size, reader.image_size)
            digest.begin(np.dtype(np.uint8), shape)
            for images in _decoded(reader, split):
                digest.add(images)
                if split is listing.train:
                    counts.add(images)
            digest.begin(split.labels.dtype, split.labels.shape)
            digest.add(split.labels)
        return cls(*counts.mean_and_std(), digest.hexdigest())


def _decoded(reader: ImageReader, split: Split) -> Iterator[np.ndarray]:
    """All images, some at a time, in an array that is used again."""
    shape = (3, reader.image_size, reader.image_size)
    images = np.empty((max(1, _CHUNK_BYTES // int(np.prod(shape))), *shape), dtype=np.uint8)
    for start in range(0, len(split.paths), len(images)):
        paths = split.paths[start : start + len(images)]
        contents = ((path.decode(), reader.content(path.decode())) for path in paths)
        decode_contents(reader.root, contents, Places((paths, images)))
        yield images[: len(paths)]


@dataclass(frozen=True)
class StreamCache:
    """The facts of the data sets in one folder; `key` names a data set's source and content in a file name."""

    folder: Path

    def load(self, key: str) -> StreamFacts:
        """Raises LookupError where there is no intact file."""
        try:
            found = json.loads(self._file(key).read_text(encoding="utf-8"))
            if found["format"] != _FORMAT:
                raise LookupError(f"{self._file(key)} has format {found['format']}")
            return StreamFacts(tuple(found["mean"]), tuple(found["std"]), found["fingerprint"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LookupError(f"{self._file(key)} is absent or damaged: {error}") from error

    def build(self, key: str, reader: ImageReader, listing: Listing) -> None:
        """Makes sure of an intact file. One process reads the images, others wait.

        Raises UserError where the folder can't be written, or an image can't be decoded.
        """
        if self._holds(key):
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with file_lock(self.folder / f".{key}.lock", wait=True):
                if not self._holds(key):
                    write_json(self._file(key), self._read(reader, listing))
        except OSError as error:
            raise UserError(
                f"What is known of the images can't be kept in {self.folder} ({error}): "
                "set data.cache (or LITLAB_CACHE) to a folder with space that can be written"
            ) from error

    def _read(self, reader: ImageReader, listing: Listing) -> dict[str, object]:
        num_images = len(listing.train.paths) + len(listing.test.paths)
        if num_images > _MANY_IMAGES:
            announce(f"Reading {num_images:,} images of {listing.name}, once, for their mean and deviation")
        facts = StreamFacts.of(reader, listing)
        return {"format": _FORMAT, "mean": facts.mean, "std": facts.std, "fingerprint": facts.fingerprint}

    def _holds(self, key: str) -> bool:
        try:
            self.load(key)
        except LookupError:
            return False
        return True

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}-stream.json"


_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def start_worker(number: int) -> None:
    """Called first in worker `number`.

    Signals that stop a run may come to all its processes. The one that trains has to save then, for which it needs
    its batches: so a worker listens to that one alone. It was started with those signals held back, which stay so.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before the kernel was told
        os._exit(0)
    threading.Thread(target=_end_when_asked, args=[parent], daemon=True).start()


def _end_when_asked(parent: int) -> None:
    """End at a SIGTERM of the parent's; others' are for the parent."""
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)


@contextmanager
def forking_quietly() -> Iterator[None]:
    """Within it workers are started, with the signals that stop a run held back, and without Python's warning of forks
    beside other threads: a worker reads and decodes, in one thread, and needs none of their locks.
    """
    with blocked_signals(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield


@dataclass(frozen=True, kw_only=True)
class StoredImages(ImageContent):
    """Both official splits in their files.

    num_workers: processes that read and decode; 0 for none but this one.
    """

    reader: ImageReader
    train_paths: np.ndarray
    test_paths: np.ndarray
    num_workers: int

    @classmethod
    def of(cls, listing: Listing, facts: StreamFacts, reader: ImageReader, num_workers: int) -> "StoredImages":
        """Those of a listing."""
        return cls(
            name=listing.name,
            class_names=listing.class_names,
            train_labels=torch.from_numpy(listing.train.labels),
            test_labels=torch.from_numpy(listing.test.labels),
            mean=facts.mean,
            std=facts.std,
            fingerprint=facts.fingerprint,
            reader=reader,
            train_paths=listing.train.paths,
            test_paths=listing.test.paths,
            num_workers=num_workers,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.reader.image_size, self.reader.image_size


class _Failed(str):
    """What a worker could not read, in words for the user: an error that it raised would come with its traceback."""


class _Images(Dataset[Tensor]):
    """What a worker does: row numbers in, images out."""

    def __init__(self, reader: ImageReader, paths: np.ndarray) -> None:
        self._reader = reader
        self._paths = paths

    def __getitems__(self, rows: list[int]) -> UInt8[Tensor, "b c h w"] | _Failed:
        try:
            return torch.from_numpy(np.stack([self._reader.pixels(self._paths[row].decode()) for row in rows]))
        except UserError as error:
            return _Failed(error)


class _Plan:
    """The rows of the batches that are to be read next; a DataLoader asks for them wherever it starts."""

    rows: Iterator[list[int]] = iter(())

    def __iter__(self) -> Iterator[list[int]]:
        return self.rows


class StreamLoader(BatchLoader):
    """Batches of one split of stored images.

    pin_memory: whether they are to be copied to a GPU from page-locked memory.
    lasting: whether the workers live from one iteration to the next, until Lightning shuts them down.
    """

    def __init__(
        self,
        images: StoredImages,
        split: Literal["train", "test"],
        *,
        pin_memory: bool,
        lasting: bool,
        **part: Any,
    ) -> None:
        super().__init__(**part)
        self._plan = _Plan()
        self._lasting = lasting
        self._reading: Any = None
        paths, self._labels = images.train_paths, images.train_labels
        if split == "test":
            paths, self._labels = images.test_paths, images.test_labels
        num_workers = images.num_workers
        self._loader: DataLoader[Any] = DataLoader(
            _Images(images.reader, paths),
            batch_sampler=self._plan,
            num_workers=num_workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            worker_init_fn=start_worker if num_workers else None,
            multiprocessing_context="fork" if num_workers else None,
            generator=torch.Generator(),  # or it would draw from the global one, which the network draws from
            persistent_workers=lasting and num_workers > 0,
        )

    @property
    def _iterator(self) -> Any:
        """Lightning ends the workers of a loader that has an `_iterator` when training is over, or has failed."""
        return self._reading

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._reading = self._loader._iterator = iterator

    def _batches(self, rows: Iterator[BatchRows]) -> Iterator[Batch]:
        """Workers start with the first batch that is asked for: Lightning begins iterations that it does not use."""
        asked: deque[BatchRows | None] = deque()  # and not yet brought: the loader keeps their order
        self._plan.rows = _noted(rows, asked)
        with forking_quietly():
            self._reading = iter(self._loader)
        for images in self._reading:
            current = asked.popleft()
            assert current is not None, "the mark of the end comes after all rows"
            if not self._lasting and list(asked) == [None]:  # Lightning does not ask for more than there is
                _shutdown_workers_and_reset_iterator(self)
            yield self._batch(current, images)

    def _batch(self, rows: BatchRows, images: UInt8[Tensor, "b c h w"] | _Failed) -> Batch:
        """Raises UserError for what a worker could not read."""
        if isinstance(images, _Failed):
            _shutdown_workers_and_reset_iterator(self)
            raise UserError(str(images))
        num_own = len(rows.indices)
        partners = None
        if rows.partners is not None:
            partners = Partners(images[num_own:], self._labels[rows.partners], rows.partners)
        return Batch(
            images[:num_own], self._labels[rows.indices], rows.indices, rows.num_valid, rows.num_global, partners
        )


def _noted(rows: Iterator[BatchRows], asked: deque[BatchRows | None]) -> Iterator[list[int]]:
    """The numbers of the images to read, as plain numbers: tensors are handed over at a price. None marks the end."""
    for each in rows:
        asked.append(each)
        yield each.indices.tolist() + ([] if each.partners is None else each.partners.tolist())
    asked.append(None)


def _unchanged(batch: Any) -> Any:
    return batch
