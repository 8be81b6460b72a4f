"""Sampling of training images by their last loss, so that hard images are visited more often than easy ones."""

import math
from fractions import Fraction
from typing import TypedDict

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from litlab.data.random_numbers import Stream, random_bits, uniform

_UNKNOWN = -math.inf
_MAX_RATIO = 10  # of the probabilities of two images


class LossTableState(TypedDict):
    """State of a `LossTable` for a checkpoint, merged over ranks.

    Attributes:
        epoch: Epoch that is collected.
        known: Losses before this epoch, float32 `n`; -inf for an image without one.
        latest: Losses of this epoch, float32 `n`; -inf for an image that it has not visited so far.
    """

    epoch: int
    known: Tensor
    latest: Tensor


class LossTable:
    """Last training loss of each image, from which the images of an epoch are drawn, without replacement.

    An image without a loss comes before all others, so the first epochs visit every image. The weight of any other is
    `1 + 9 q`, where q is the fraction of the known losses that are at most its own: of two images, one is at most ten
    times as likely as the other, so an easy image comes now and then and its loss does not become too old. Quantiles,
    as in Selective-Backprop (Jiang et al. 2019, arXiv 1910.00762), make the draw the same for any scale of the loss,
    also for negative ones, and no outlier dominates it. The gradient is not corrected for the draw: to weigh hard
    images more is its purpose.

    The images with the smallest `u / weight` are drawn, u uniform in 0..1: sequential Poisson sampling (Ohlsson 1998,
    Journal of Official Statistics 14), by which the probability of an image is close to `min(1, c * weight)` for one c.
    u is a function of (seed, epoch, row). A draw compares, counts and divides, all of which is exact, so it is the same
    on every processor; a logarithm, as in other weighted samplings, is not.

    The losses of an epoch are collected beside those that its images were drawn from, so that the order of a running
    epoch can be drawn again. They replace these at the start of the next epoch.

    Args:
        num_rows: Number of rows of the official training split.
        fraction: Fraction of the training images that an epoch visits, rounded up, above 0 and below 1.
        device: Device of the losses that are recorded.

    Attributes:
        has_losses: A loss has been recorded.
    """

    def __init__(self, num_rows: int, fraction: float, device: torch.device) -> None:
        self.has_losses = False
        self._fraction = Fraction(str(fraction))  # exact: 0.1 of 30 images are 3
        self._epoch = 0
        self._known = torch.full((num_rows,), _UNKNOWN, device=device)
        self._latest = self._known.clone()

    def num_drawn(self, num_images: int) -> int:
        """Return how many of so many training images an epoch visits."""
        return math.ceil(self._fraction * num_images)

    def record(self, indices: Int64[Tensor, " b"], losses: Float[Tensor, " b"]) -> None:
        """Remember the losses of images, without a synchronization with the device.

        Args:
            indices: Rows of the real images of this rank's batch, `Batch.indices` without padding.
            losses: Loss of each.
        """
        self.has_losses = True
        self._latest.index_copy_(0, indices, losses.detach().to(torch.float32))

    def start_epoch(self, epoch: int) -> None:
        """Take over the losses of all ranks from the epoch that has ended. Every rank has to call this.

        Args:
            epoch: Number of the epoch; nothing changes if it has begun already.
        """
        if epoch != self._epoch:
            latest = self._merge_ranks()
            self._known = torch.where(latest == _UNKNOWN, self._known, latest)
            self._latest.fill_(_UNKNOWN)
            self._epoch = epoch

    def draw(self, indices: Int64[Tensor, " n"], seed: int, epoch: int) -> Int64[Tensor, " m"]:
        """Draw the images that an epoch visits, in no particular order.

        Args:
            indices: Rows of all training images.
            seed: Seed of the draw.
            epoch: Number of the epoch.
        """
        rows, losses = indices.cpu(), self._known[indices.to(self._known.device)].cpu()
        is_known = losses != _UNKNOWN
        ascending = losses[is_known].sort().values
        num_lower = torch.searchsorted(ascending, losses, right=True)
        weights = len(ascending) + (_MAX_RATIO - 1) * num_lower
        numbers = uniform(random_bits(rows, seed, epoch, Stream.HARD_IMAGES)).double()
        keys = torch.where(is_known, numbers / weights, numbers - 1)  # below 0: first
        return indices[keys.argsort(stable=True)[: self.num_drawn(len(rows))].to(indices.device)]

    def state(self) -> LossTableState:
        """Return the state for a checkpoint. Every rank has to call this."""
        return {"epoch": self._epoch, "known": self._known, "latest": self._merge_ranks()}

    def set_state(self, state: LossTableState) -> None:
        """Restore a state, which may be of another number of ranks."""
        device = self._known.device
        self._epoch = state["epoch"]
        self._known, self._latest = (state[name].to(device, copy=True) for name in ("known", "latest"))
        self.has_losses = bool(((self._known != _UNKNOWN) | (self._latest != _UNKNOWN)).any())

    def _merge_ranks(self) -> Tensor:
        """Return the losses of this epoch from all ranks, each of which visits other images."""
        merged = torch.where(self._latest.isnan(), math.inf, self._latest)  # which maximum and order are defined for
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(merged, torch.distributed.ReduceOp.MAX)
        return merged
