"""Seekable loaders: the batches of an epoch are slices of one order, wherever the images are."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypedDict, Unpack

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from litlab.data.augment import Mixing
from litlab.data.loss_table import LossTable
from litlab.data.random_numbers import Stream, random_order
from litlab.errors import UserError


class Partners(NamedTuple):
    """Second training image for each row of a batch, for mixup and cutmix.

    Attributes:
        images: Shape b c h w, uint8, from the loader; undefined after mixing, which overwrites them.
        labels: Shape b, int64.
        indices: Shape b, int64.
        lam: Weight of the row's own label, shape b, float32; that of the partner's is 1 - lam. Set by mixing.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    lam: Tensor | None = None


class Batch(NamedTuple):
    """One rank's part of a global batch.

    The counts are Python ints, so that slicing by them needs no device synchronization.

    Attributes:
        images: Shape b c h w: uint8 from the loader; float, augmented and normalized, after the transfer.
        labels: Shape b, int64.
        indices: Row in the arrays of the official split, shape b, int64 (validation rows are rows of train).
        num_valid: Number of real rows, which come first; the others repeat one, so that all ranks have one shape.
        num_global: Number of real rows in this step over all ranks.
        partners: In training with mixup or cutmix.
        loss_table: In training with `hard_fraction`: the task records the losses of the real rows in it.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor
    num_valid: int
    num_global: int
    partners: Partners | None = None
    loss_table: LossTable | None = None


class BatchRows(NamedTuple):
    """Row numbers of one rank's part of a global batch, before any image is read."""

    indices: Int64[Tensor, " b"]
    partners: Int64[Tensor, " b"] | None
    num_valid: int
    num_global: int
    epoch: int


class EpochSampler:
    """Order in which an epoch visits the images: a function of (seed, epoch), and of the loss table if there is one.

    Args:
        indices: Rows of the arrays in the order of evaluation, shape n.
        seed: Seed of the orders.
        shuffle: Give each epoch an order of its own.
        loss_table: Draws the images of each epoch; None for all of them.

    Attributes:
        epoch: Number of the epoch.
        position: Number of batches already consumed, where the next iteration starts.
        num_visited: Number of images that an epoch visits.
    """

    def __init__(
        self, *, indices: Int64[Tensor, " n"], seed: int, shuffle: bool, loss_table: LossTable | None = None
    ) -> None:
        self.indices = indices
        self.seed = seed
        self.shuffle = shuffle
        self.loss_table = loss_table
        self.num_visited = len(indices) if loss_table is None else loss_table.num_drawn(len(indices))
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, as Lightning does before each one. The position stays."""
        self.epoch = epoch
        if self.loss_table is not None:
            self.loss_table.start_epoch(epoch)

    def order(self) -> Int64[Tensor, " m"]:
        """Return the rows of this epoch in their order."""
        indices, table = self.indices, self.loss_table
        if table is not None:
            indices = table.draw(indices, self.seed, self.epoch)
        return random_order(indices, self.seed, self.epoch, Stream.ORDER) if self.shuffle else indices


class LoaderArgs(TypedDict):
    """Arguments of every loader.

    Attributes:
        sampler: Order of the rows.
        batch_size: Number of images in a step over all ranks.
        rank: Number of this process.
        world_size: Number of processes.
        mixing: Draws a partner for each image; None for none.
    """

    sampler: EpochSampler
    batch_size: int
    rank: int
    world_size: int
    mixing: Mixing | None


class BatchLoader(ABC):
    """One rank's part of every global batch; a subclass only provides the images.

    Global batch k is order[k * batch_size : (k + 1) * batch_size] for any number of ranks; each rank has a contiguous
    part of it. Where the parts can't be equal (in the last batch), they are padded to the size of the largest.

    Args:
        args: See `LoaderArgs`.

    Raises:
        UserError: if `world_size` doesn't divide `batch_size`.
    """

    batch_sampler = None  # Lightning reads it of everything that has a `sampler`

    def __init__(self, **args: Unpack[LoaderArgs]) -> None:
        batch_size, world_size = args["batch_size"], args["world_size"]
        if batch_size % world_size:
            below = batch_size // world_size * world_size
            choices = f"{below} or {below + world_size}" if below else f"{world_size}"
            raise UserError(
                f"data.batch_size={batch_size} is global and must be divisible by the number of devices "
                f"({world_size}): use {choices}"
            )
        self.sampler = args["sampler"]
        self.batch_size = batch_size
        self._args = args

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, wherever the next iteration starts."""
        return -(-self.sampler.num_visited // self.batch_size)

    def seek(self, position: int) -> None:
        """Start the next iteration, and only that, after `position` batches.

        Raises:
            ValueError: if the epoch has fewer batches.
        """
        if not 0 <= position <= len(self):
            raise ValueError(f"position {position} is outside this epoch of {len(self)} batches")
        self.sampler.position = position

    def __iter__(self) -> Iterator[Batch]:
        start, self.sampler.position = self.sampler.position, 0
        return self._batches(_batch_rows(range(start, len(self)), self._args))

    @abstractmethod
    def _batches(self, rows: Iterator[BatchRows]) -> Iterator[Batch]:
        """Yield the images and labels of these rows, batch by batch."""


class MemoryLoader(BatchLoader):
    """Loader that gathers batches from tensors, on the device of these tensors and of the sampler's indices.

    Args:
        images: Shape n c h w.
        labels: Shape n.
        args: See `LoaderArgs`.
    """

    def __init__(
        self, *, images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, " n"], **args: Unpack[LoaderArgs]
    ) -> None:
        super().__init__(**args)
        self.images = images
        self.labels = labels

    def _batches(self, rows: Iterator[BatchRows]) -> Iterator[Batch]:
        return map(self._batch, rows)

    def _batch(self, rows: BatchRows) -> Batch:
        partners = None if rows.partners is None else Partners(*self._gather(rows.partners), rows.partners)
        images, labels = self._gather(rows.indices)
        table = self.sampler.loss_table
        return Batch(images, labels, rows.indices, rows.num_valid, rows.num_global, partners, table)

    def _gather(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)


def rank_slice(indices: Int64[Tensor, " n"], rank: int, world_size: int) -> tuple[Int64[Tensor, " part"], int]:
    """Return a rank's contiguous part of a batch, padded to the size of the largest, and its number of real rows.

    Parts differ by one at most, so a rank is left without a real row only where there are fewer rows than ranks.
    """
    start, end = (len(indices) * boundary // world_size for boundary in (rank, rank + 1))
    num_padding = -(-len(indices) // world_size) - (end - start)
    part = indices[start:end]
    if num_padding:
        part = torch.cat([part, (part if len(part) else indices)[:1].expand(num_padding)])
    return part, end - start


def _batch_rows(numbers: Iterable[int], args: LoaderArgs) -> Iterator[BatchRows]:
    """Yield the rows of the global batches with these numbers, in the order that the sampler has at the call.

    No method of the loader: a process that reads ahead holds this iterator, and the loader holds the process.
    """
    sampler, batch_size, mixing = args["sampler"], args["batch_size"], args["mixing"]
    order, epoch, indices = sampler.order(), sampler.epoch, sampler.indices

    def rows(number: int) -> BatchRows:
        batch = order[number * batch_size : (number + 1) * batch_size]
        part, num_valid = rank_slice(batch, args["rank"], args["world_size"])
        partners = None if mixing is None else mixing.partners(part, indices, epoch)
        return BatchRows(part, partners, num_valid, len(batch), epoch)

    return map(rows, numbers)
