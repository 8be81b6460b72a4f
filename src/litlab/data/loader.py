"""Seekable loaders: batches are slices of one order per epoch, wherever the images are."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypedDict, Unpack

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from litlab.data.augment import Mixing
from litlab.data.random_numbers import random_order
from litlab.errors import UserError


class Partners(NamedTuple):
    """Of mixup and cutmix: another training image for each row of a batch.

    `lam` comes with the mixing, which consumes `images`: what they hold then is nobody's business.
    """

    images: Tensor  # b c h w, uint8, from the loader
    labels: Tensor  # b, int64
    indices: Tensor  # b, int64
    lam: Tensor | None = None  # b, float32: weight of the row's own label; that of the partner's is 1 - lam


class Batch(NamedTuple):
    """One rank's part of one global batch.

    The counts are Python ints, so that slicing by them needs no device synchronisation.
    """

    images: Tensor  # b c h w: uint8 from the loader; float, augmented and normalised, after the transfer
    labels: Tensor  # b, int64
    indices: Tensor  # b, int64: row in the arrays of the official split (validation rows are rows of train)
    num_valid: int  # the first num_valid rows are real; the rest repeats one, so that all ranks have one batch shape
    num_global: int  # real rows in this step over all ranks
    partners: Partners | None = None  # while training with mixup or cutmix


_ORDER = 0  # stream of random numbers; augmentation has others


class EpochOrder:
    """The order in which one epoch visits the members: a function of (seed, epoch) alone.

    members: rows of the arrays, in the order of evaluation.
    shuffle: whether each epoch has its own order.
    position: number of batches already consumed, where the next iteration starts.
    """

    def __init__(self, *, members: Int64[Tensor, " n"], seed: int, shuffle: bool) -> None:
        self.members = members
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.position = 0

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this on a loader's `sampler` before each epoch. A position that was set stays."""
        self.epoch = epoch

    def indices(self) -> Int64[Tensor, " n"]:
        """All members in this epoch's order."""
        return random_order(self.members, self.seed, self.epoch, _ORDER) if self.shuffle else self.members


class BatchRows(NamedTuple):
    """What one rank's part of one global batch consists of, before anything is read."""

    indices: Int64[Tensor, " b"]
    partners: Int64[Tensor, " b"] | None
    num_valid: int
    num_global: int


class LoaderPart(TypedDict):
    """Arguments of every loader.

    batch_size: images per step over all ranks.
    mixing: what draws a partner for each image; None for none.
    """

    sampler: EpochOrder
    batch_size: int
    rank: int
    world_size: int
    mixing: Mixing | None


@dataclass(frozen=True)
class _Share:
    """Says what a rank's batches consist of. It knows no loader: what reads ahead holds it, and is held by one."""

    batch_size: int
    rank: int
    world_size: int
    mixing: Mixing | None

    def rows(self, sampler: EpochOrder, numbers: Iterable[int]) -> Iterator[BatchRows]:
        """Of the global batches with these numbers, in the order that the sampler has now."""
        order, epoch, members = sampler.indices(), sampler.epoch, sampler.members
        return (self._rows(order, epoch, members, number) for number in numbers)

    def _rows(self, order: Tensor, epoch: int, members: Tensor, number: int) -> BatchRows:
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        mine, num_valid = rank_share(chosen, self.rank, self.world_size)
        partners = None if self.mixing is None else self.mixing.partners(mine, members, epoch)
        return BatchRows(mine, partners, num_valid, len(chosen))


class BatchLoader(ABC):
    """One rank's share of every global batch; a subclass only says how to come by the images.

    Global batch k is order[k * batch_size : (k + 1) * batch_size] for any number of ranks; each rank has a contiguous
    part of it. Where the parts can't be equal (in the last batch), they are padded to the largest part's size.

    Raises UserError where `world_size` doesn't divide `batch_size`.
    """

    batch_sampler = None  # Lightning asks whatever has a `sampler` for it

    def __init__(self, **part: Unpack[LoaderPart]) -> None:
        check_divisible(part["batch_size"], part["world_size"])
        self.sampler = part["sampler"]
        self.batch_size = part["batch_size"]
        self._share = _Share(part["batch_size"], part["rank"], part["world_size"], part["mixing"])

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the next iteration starts."""
        return -(-len(self.sampler.members) // self.batch_size)

    def seek(self, position: int) -> None:
        """The next iteration, and only that, starts after `position` batches."""
        if not 0 <= position <= len(self):
            raise ValueError(f"position {position} is outside this epoch of {len(self)} batches")
        self.sampler.position = position

    def __iter__(self) -> Iterator[Batch]:
        start, self.sampler.position = self.sampler.position, 0
        return self._batches(self._share.rows(self.sampler, range(start, len(self))))

    @abstractmethod
    def _batches(self, rows: Iterator[BatchRows]) -> Iterator[Batch]:
        """The images and labels of these rows, batch by batch."""


class MemoryLoader(BatchLoader):
    """Gathers batches from tensors, on the device that they, and the members of the order, are on."""

    def __init__(
        self, *, images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, " n"], **part: Unpack[LoaderPart]
    ) -> None:
        super().__init__(**part)
        self.images = images
        self.labels = labels

    def _batches(self, rows: Iterator[BatchRows]) -> Iterator[Batch]:
        return map(self._batch, rows)

    def _batch(self, rows: BatchRows) -> Batch:
        partners = None if rows.partners is None else Partners(*self._gathered(rows.partners), rows.partners)
        return Batch(*self._gathered(rows.indices), rows.indices, rows.num_valid, rows.num_global, partners)

    def _gathered(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.images.index_select(0, rows), self.labels.index_select(0, rows)


def rank_share(members: Int64[Tensor, " n"], rank: int, world_size: int) -> tuple[Int64[Tensor, " share"], int]:
    """A rank's contiguous part of the members, padded to the largest part's size, and how many of it are real.

    Parts differ by one at most, so a rank is left without a real row only where there are fewer rows than ranks.
    """
    first, end = (len(members) * each // world_size for each in (rank, rank + 1))
    num_padding = -(-len(members) // world_size) - (end - first)
    mine = members[first:end]
    if num_padding:
        filler = mine[:1] if len(mine) else members[:1]
        mine = torch.cat([mine, filler.expand(num_padding)])
    return mine, end - first


def check_divisible(batch_size: int, world_size: int) -> None:
    """Raises UserError where the devices can't have equal shares of a batch."""
    if batch_size % world_size:
        below = batch_size // world_size * world_size
        choices = f"{below} or {below + world_size}" if below else f"{world_size}"
        raise UserError(
            f"data.batch_size={batch_size} is global and must be divisible by the number of devices "
            f"({world_size}): use {choices}"
        )
