"""Loader whose images are read and transformed by worker processes, those of a torch DataLoader.

The batches are those of images in memory, bit for bit, for any number of ranks and workers and from any position on:
the same `BatchLoader` decides which rows a batch has, and the workers only read and transform them.
"""

import ctypes
import errno
import os
import shutil
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int64, UInt8
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from litlab.data.loader import Batch, BatchLoader, BatchRows, Partners
from litlab.data.transforms import EVALUATION_EPOCH, ImageTransforms
from litlab.errors import UserError
from litlab.process.signals import blocked_signals

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_SHARED_MEMORY = Path("/dev/shm")
_LACKS_SHARED_MEMORY = (errno.ENOSPC, errno.ENOENT, errno.EACCES, errno.ENOSYS)


class WorkerLoader(BatchLoader):
    """Batches of images that worker processes read and transform.

    Args:
        read: Returns the image of a row; it may raise a UserError.
        labels: Label of each row.
        transforms: Transforms of each image.
        is_training: Draw the random numbers of the transforms anew in each epoch.
        num_workers: Number of processes; 0 for this one.
        pin_memory: Copy images to page-locked memory, from which they are moved to a GPU faster.
        persistent_workers: Keep the workers between iterations, until Lightning shuts them down.
        args: See `LoaderArgs`.

    Raises:
        UserError: If there are to be workers on another system than Linux, whose kernel ends them with their parent.
    """

    def __init__(
        self,
        read: Callable[[int], UInt8[Tensor, "c h w"]],
        labels: Int64[Tensor, " n"],
        *,
        transforms: ImageTransforms,
        is_training: bool,
        num_workers: int,
        pin_memory: bool,
        persistent_workers: bool,
        **args: Any,
    ) -> None:
        super().__init__(**args)
        if num_workers and sys.platform != "linux":
            raise UserError(
                f"data.num_workers={num_workers}: processes that read images need Linux; expected data.num_workers=0"
            )
        self._row_batches = _RowBatches()
        self._persistent_workers = persistent_workers
        self._active_iterator: Any = None
        self._labels = labels
        self._loader: DataLoader[Any] = DataLoader(
            _Images(read, transforms, is_training),
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
        labels, table = self._labels[rows.indices], self.sampler.loss_table
        return Batch(images[:size], labels, rows.indices, rows.num_valid, rows.num_global, partners, table)


class _ReadError(str):
    """Message of a UserError in a worker, which would add its traceback to an exception."""


class _Images(Dataset[Tensor]):
    """Dataset of images, indexed by the epoch and row numbers of a batch."""

    def __init__(self, read: Callable[[int], Tensor], transforms: ImageTransforms, is_training: bool) -> None:
        self._read = read
        self._transforms = transforms
        self._is_training = is_training

    def __getitems__(self, request: list[Any]) -> UInt8[Tensor, "b c h w"] | _ReadError:
        epoch, rows = request
        try:
            images = [self._read(row) for row in rows]
            if self._transforms:
                images = self._transforms(images, rows, epoch if self._is_training else EVALUATION_EPOCH)
                self._transforms.check_shapes(images, rows)
        except UserError as error:
            return _ReadError(error)
        batch = torch.stack(images)
        if get_worker_info() is None:
            return batch
        try:
            batch.share_memory_()  # type: ignore[no-untyped-call]  # here: the queue would print an error and send nothing
            return batch
        except RuntimeError as error:
            size = f"{batch.nbytes / 2**20:,.1f} MiB"
            return _ReadError(_shared_memory_problem(f"a worker can't hand over its batch of {size}: {error}"))


class _RowBatches:
    """Batch sampler whose requests are set before each iteration, so that the DataLoader starts at any batch."""

    rows: Iterator[list[Any]] = iter(())

    def __iter__(self) -> Iterator[list[Any]]:
        return self.rows


def _shared_memory_problem(failure: str) -> str:
    """Add to a failure of a worker how much shared memory there is, and what to do."""
    size = f"{shutil.disk_usage(_SHARED_MEMORY).total / 2**20:,.0f} MiB" if _SHARED_MEMORY.exists() else "missing"
    return (
        f"data.num_workers: {failure}. Workers need shared memory, {_SHARED_MEMORY} ({size}): enlarge it, as by "
        "`docker run --shm-size=2g`, take a smaller data.batch_size, or set data.num_workers=0, which needs none"
    )


def _record_requests(rows: Iterator[BatchRows], requested: deque[BatchRows | None]) -> Iterator[list[Any]]:
    """Yield the epoch and the numbers of the images as ints, since tensors are costly to send. None marks the end."""
    for batch in rows:
        requested.append(batch)
        yield [batch.epoch, batch.indices.tolist() + ([] if batch.partners is None else batch.partners.tolist())]
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
