"""A seekable loader: batches are slices of one order per epoch, gathered from one uint8 tensor."""

from collections.abc import Iterator

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from litlab.data.batch import Batch
from litlab.data.random_numbers import random_order
from litlab.errors import UserError

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


class BatchLoader:
    """One rank's share of every global batch.

    Global batch k is order[k * batch_size : (k + 1) * batch_size] for any number of ranks; each rank has a contiguous
    part of it. Where the parts can't be equal (in the last batch), they are padded to the largest part's size.

    batch_size: images per step over all ranks.
    Raises UserError where `world_size` doesn't divide `batch_size`.
    """

    batch_sampler = None  # Lightning asks whatever has a `sampler` for it

    def __init__(
        self,
        *,
        images: UInt8[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        sampler: EpochOrder,
        batch_size: int,
        rank: int,
        world_size: int,
    ) -> None:
        check_divisible(batch_size, world_size)
        self.images = images
        self.labels = labels
        self.sampler = sampler
        self.batch_size = batch_size
        self.rank = rank
        self.world_size = world_size

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
        order = self.sampler.indices()
        return (self._batch(order, number) for number in range(start, len(self)))

    def _batch(self, order: Tensor, number: int) -> Batch:
        members = order[number * self.batch_size : (number + 1) * self.batch_size]
        mine, num_valid = rank_share(members, self.rank, self.world_size)
        images, labels = self.images.index_select(0, mine), self.labels.index_select(0, mine)
        return Batch(images, labels, mine, num_valid, len(members))


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
