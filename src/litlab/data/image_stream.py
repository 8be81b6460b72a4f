"""Streamed images: read and decoded again in every epoch by a torch DataLoader and its workers.

The batches are those of images in memory, bit for bit, for any number of ranks and workers and from any position on:
the same `BatchLoader` decides which rows a batch has, and the workers only read them.
"""

import ctypes
import errno
import os
import shutil
import signal
import threading
import warnings
import zipfile
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from litlab.data.archive import ZipReader
from litlab.data.arrays import MANY_IMAGES, ImageSplits, announce, build_once, image_statistics
from litlab.data.image_decoder import (
    MAX_BIT_DEPTH,
    DecodingReport,
    decode_contents,
    decode_image,
    image_source,
    read_file,
)
from litlab.data.image_listing import ImageListing, OutputRows, Split
from litlab.data.image_selection import ImageSelection
from litlab.data.loader import Batch, BatchLoader, BatchRows, Partners
from litlab.errors import UserError
from litlab.process.signals import blocked_signals
from litlab.runs.files import write_atomic

_FORMAT = 2
_CHUNK_BYTES = 2**24  # of pixels that are in memory at a time
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_SHARED_MEMORY = Path("/dev/shm")
_LACKS_SHARED_MEMORY = (errno.ENOSPC, errno.ENOENT, errno.EACCES, errno.ENOSYS)


class ImageReader:
    """Random access to the images of a folder or zip archive, decoded to the same pixels as by `decode_images`.

    Each process needs its own once it has read an image, since an open file can't be shared.

    Args:
        root: The folder or archive.
        image_size: Height and width that images are resized to.
        bit_depth: Bits that 16-bit images use.

    Raises:
        UserError: for a tar archive, which can only be read from front to back.
    """

    def __init__(self, root: Path, image_size: int, bit_depth: int = MAX_BIT_DEPTH) -> None:
        self.root = root
        self.image_size = image_size
        self.bit_depth = bit_depth
        self._archive: ZipReader | None = None
        if not root.is_dir() and root.suffix.lower() != ".zip":
            raise UserError(
                f"data.storage=stream: {root} can only be read from front to back, not image by image: "
                "unpack it and set data.root to the folder, pack it as a zip archive, or set data.storage=memory"
            )

    def content(self, path: str) -> bytes:
        """Read a file; raise a UserError if it no longer exists."""
        if self.root.is_dir():
            return read_file(self.root / path)
        if self._archive is None:
            self._archive = ZipReader(self.root)
        return self._archive.read(path)

    def pixels(self, path: str) -> UInt8[np.ndarray, "3 h w"]:
        """Read and decode an image.

        Raises:
            UserError: if the file no longer exists or is not an image, naming it.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's, of odd metadata and large images; too large ones are refused
            size = (self.image_size, self.image_size)
            return decode_image(self.content(path), size, image_source(self.root, path), self.bit_depth)


def build_statistics(folder: Path, key: str, image_size: int, selection: ImageSelection) -> None:
    """Make sure that the cache in `folder` has the statistics of streamed images, which takes one pass over them.

    After a pass that finds images to leave out, or to scale, there is another one.

    Raises:
        UserError: if the folder can't be written, or an image can't be decoded.
    """

    def write() -> None:
        listing = selection.listing
        num_images = len(listing.train.paths) + len(listing.test.paths)
        if num_images > MANY_IMAGES:
            announce(f"Reading {num_images:,} images of {listing.name}, once, for their mean and deviation")
        statistics = _image_statistics(image_size, selection)
        write_atomic(folder / f"{key}-stream.npz", lambda file: np.savez(file, format=_FORMAT, **statistics))

    build_once(folder, key, lambda: load_statistics(folder, key), write)


def load_statistics(folder: Path, key: str) -> dict[str, Any]:
    """Read the fields `train_sums`, `fingerprint`, `bit_depth` and `skipped` of `ImageSplits` from a cache.

    Raises:
        LookupError: if it has no intact file of them.
    """
    file = folder / f"{key}-stream.npz"
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as values:
            if values["format"] != _FORMAT:
                raise LookupError(f"{file} has format {values['format']}")
            return {
                "train_sums": torch.from_numpy(values["train_sums"]),
                "fingerprint": str(values["fingerprint"]),
                "bit_depth": int(values["bit_depth"]) or None,
                "skipped": tuple(values["skipped"].tolist()),
            }
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise LookupError(f"{file} is absent or damaged: {error}") from error


def _image_statistics(image_size: int, selection: ImageSelection) -> dict[str, Any]:
    """Compute what `load_statistics` reads."""
    reader = ImageReader(selection.root, image_size, selection.used_depth)
    report = selection.new_report()
    arrays: list[tuple[np.dtype, tuple[int, ...], Iterable[np.ndarray]]] = []
    for split in (selection.listing.train, selection.listing.test):
        shape = (len(split.paths), 3, image_size, image_size)
        arrays.append((np.dtype(np.uint8), shape, _decode_in_chunks(reader, split, report)))
        arrays.append((split.labels.dtype, split.labels.shape, [split.labels]))
    statistics = image_statistics(*arrays)
    usable = selection.after(report)
    if usable is not selection:
        return _image_statistics(image_size, usable)
    return statistics | {"bit_depth": selection.bit_depth or 0, "skipped": np.array(selection.skipped, dtype=str)}


def _decode_in_chunks(
    reader: ImageReader, split: Split, report: DecodingReport
) -> Iterator[UInt8[np.ndarray, "n 3 h w"]]:
    """Yield all images in chunks, in an array that is used again."""
    shape = (3, reader.image_size, reader.image_size)
    images = np.empty((max(1, _CHUNK_BYTES // int(np.prod(shape))), *shape), dtype=np.uint8)
    for start in range(0, len(split.paths), len(images)):
        paths = split.paths[start : start + len(images)]
        contents = ((path.decode(), reader.content(path.decode())) for path in paths)
        decode_contents(contents, OutputRows((paths, images)), reader.bit_depth, report)
        yield images[: len(paths)]


@dataclass(frozen=True, kw_only=True)
class StreamedImages(ImageSplits):
    """Both official splits in their files.

    Attributes:
        reader: Reads the images.
        listing: Paths of the images.
        num_workers: Number of processes that read and decode; 0 for this one.
    """

    reader: ImageReader
    listing: ImageListing
    num_workers: int

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return 3, self.reader.image_size, self.reader.image_size


class StreamLoader(BatchLoader):
    """Batches of one split of streamed images.

    Args:
        images: Both splits.
        split: The split to load.
        pin_memory: Copy images to page-locked memory, from which they are moved to a GPU faster.
        persistent_workers: Keep the workers between iterations, until Lightning shuts them down.
        args: See `LoaderArgs`.
    """

    def __init__(
        self,
        images: StreamedImages,
        split: Literal["train", "test"],
        *,
        pin_memory: bool,
        persistent_workers: bool,
        **args: Any,
    ) -> None:
        super().__init__(**args)
        self._row_batches = _RowBatches()
        self._persistent_workers = persistent_workers
        self._active_iterator: Any = None
        listed = images.listing.train if split == "train" else images.listing.test
        self._labels = torch.from_numpy(listed.labels)
        num_workers = images.num_workers
        self._loader: DataLoader[Any] = DataLoader(
            _DecodedImages(images.reader, listed.paths),
            batch_sampler=self._row_batches,
            num_workers=num_workers,
            collate_fn=lambda images: images,
            pin_memory=pin_memory,
            worker_init_fn=_init_worker if num_workers else None,
            multiprocessing_context="fork" if num_workers else None,
            generator=torch.Generator(),  # or it would draw from the global one, which the network draws from
            persistent_workers=persistent_workers and num_workers > 0,
        )

    @property
    def _iterator(self) -> Any:
        """Iterator of the DataLoader: Lightning ends its workers when training is over or has failed."""
        return self._active_iterator

    @_iterator.setter
    def _iterator(self, iterator: Any) -> None:
        self._active_iterator = self._loader._iterator = iterator

    def _batches(self, rows: Iterator[BatchRows]) -> Iterator[Batch]:
        """Start the workers at the first batch: Lightning begins iterations that it does not use."""
        requested: deque[BatchRows | None] = deque()  # not yet returned; the DataLoader keeps their order
        self._row_batches.rows = _record_requests(rows, requested)
        with blocked_signals(), warnings.catch_warnings():
            # A worker reads and decodes in one thread, and needs none of the locks of other threads.
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            try:
                self._active_iterator = iter(self._loader)
            except OSError as error:
                problem = f"the workers that read images can't be started: {error.strerror}"
                if error.errno in _LACKS_SHARED_MEMORY:  # which their queues need, too
                    raise UserError(_shared_memory_problem(problem)) from error
                raise UserError(f"data.num_workers: {problem}; set a smaller number, or 0") from error
        for images in self._active_iterator:
            current = requested.popleft()
            assert current is not None, "the end marker comes after all rows"
            if not self._persistent_workers and list(requested) == [None]:  # Lightning stops after the last batch
                _shutdown_workers_and_reset_iterator(self)
            yield self._batch(current, images)

    def _batch(self, rows: BatchRows, images: "UInt8[Tensor, 'b c h w'] | _ReadError") -> Batch:
        if isinstance(images, _ReadError):
            _shutdown_workers_and_reset_iterator(self)
            raise UserError(str(images))
        size, partners = len(rows.indices), None
        if rows.partners is not None:
            partners = Partners(images[size:], self._labels[rows.partners], rows.partners)
        return Batch(images[:size], self._labels[rows.indices], rows.indices, rows.num_valid, rows.num_global, partners)


class _ReadError(str):
    """Message of a UserError in a worker, which would add its traceback to an exception."""


class _DecodedImages(Dataset[Tensor]):
    """Dataset of decoded images, indexed by batches of row numbers."""

    def __init__(self, reader: ImageReader, paths: np.ndarray) -> None:
        self._reader = reader
        self._paths = paths

    def __getitems__(self, rows: list[int]) -> UInt8[Tensor, "b c h w"] | _ReadError:
        try:
            images = torch.from_numpy(np.stack([self._reader.pixels(self._paths[row].decode()) for row in rows]))
        except UserError as error:
            return _ReadError(error)
        if get_worker_info() is None:
            return images
        try:
            images.share_memory_()  # type: ignore[no-untyped-call]  # here: the queue would print an error and send nothing
            return images
        except RuntimeError as error:
            size = f"{images.nbytes / 2**20:,.1f} MiB"
            return _ReadError(_shared_memory_problem(f"a worker can't hand over its batch of {size}: {error}"))


class _RowBatches:
    """Batch sampler whose row numbers are set before each iteration, so that the DataLoader starts at any batch."""

    rows: Iterator[list[int]] = iter(())

    def __iter__(self) -> Iterator[list[int]]:
        return self.rows


def _shared_memory_problem(failure: str) -> str:
    """Add to a failure of a worker how much shared memory there is, and what to do."""
    size = f"{shutil.disk_usage(_SHARED_MEMORY).total / 2**20:,.0f} MiB" if _SHARED_MEMORY.exists() else "missing"
    return (
        f"data.num_workers: {failure}. Workers need shared memory, {_SHARED_MEMORY} ({size}): enlarge it, as by "
        "`docker run --shm-size=2g`, take a smaller data.batch_size, or set data.num_workers=0, which needs none"
    )


def _record_requests(rows: Iterator[BatchRows], requested: deque[BatchRows | None]) -> Iterator[list[int]]:
    """Yield the numbers of the images to read as ints, since tensors are costly to send. None marks the end."""
    for batch in rows:
        requested.append(batch)
        yield batch.indices.tolist() + ([] if batch.partners is None else batch.partners.tolist())
    requested.append(None)


def _init_worker(number: int) -> None:
    """Let a worker end with the process that trains or at its SIGTERM, but not at signals to all processes of a run.

    The process that trains needs its batches until it has saved a checkpoint.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended before the call
        os._exit(0)
    threading.Thread(target=_exit_at_sigterm, args=[parent], daemon=True).start()


def _exit_at_sigterm(parent: int) -> None:
    while signal.sigwaitinfo([signal.SIGTERM]).si_pid != parent:
        pass
    os._exit(0)
