"""Images that stay in their files: read and decoded anew in every epoch, by a torch DataLoader and its workers.

The batches are those of images in memory, bit for bit, for any number of ranks and workers and from any position on:
which rows a batch has is said by the same `BatchLoader`, and a worker only brings them.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import UInt8
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from litlab.data.arrays import ImageContent
from litlab.data.batch import Batch, Partners
from litlab.data.image_listing import Listing
from litlab.data.loader import BatchLoader, BatchRows
from litlab.data.read_image import ImageReader
from litlab.data.stream_facts import StreamFacts
from litlab.data.stream_worker import forking_quietly, start_worker
from litlab.errors import UserError


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
