"""Boxes of pixels, one for each image of a batch, and cutout, which erases them."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from litlab.data.random_numbers import Stream, random_below, random_bits


class Boxes(NamedTuple):
    """A rectangle for each image of a batch: rows top..bottom-1 and columns left..right-1, each of shape b."""

    top: Int64[Tensor, " b"]
    bottom: Int64[Tensor, " b"]
    left: Int64[Tensor, " b"]
    right: Int64[Tensor, " b"]

    def mask(self, height: int, width: int) -> Bool[Tensor, "b 1 h w"]:
        """Return a mask of the pixels inside."""
        rows = _between(self.top, self.bottom, height)
        columns = _between(self.left, self.right, width)
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def area_fraction(self, height: int, width: int) -> Float32[Tensor, " b"]:
        """Return the fraction of the image inside, for images that contain the boxes."""
        num_pixels = (self.bottom - self.top) * (self.right - self.left)
        return num_pixels.to(torch.float32) / (height * width)


def _between(start: Tensor, end: Tensor, size: int) -> Bool[Tensor, "b size"]:
    positions = torch.arange(size, device=start.device)
    return (positions >= start[:, None]) & (positions < end[:, None])


def cut_out(
    images: Float[Tensor, "b c h w"], indices: Int64[Tensor, " b"], epoch: int, *, seed: int, side: int
) -> Float[Tensor, "b c h w"]:
    """Erase a square of `side` pixels, clipped at the border; its center is any pixel of the image.

    DeVries and Taylor, arXiv 1708.04552. The center of an even side is the pixel below and right of the middle.

    Args:
        images: Normalized images: zero is the mean.
        indices: Index of each image in the data set.
        epoch: Epoch, counted from 0.
        seed: Seed of the draws.
        side: Side of the square in pixels.
    """
    height, width = images.shape[-2:]
    top = random_below(random_bits(indices, seed, epoch, Stream.CUTOUT_ROW), height) - side // 2
    left = random_below(random_bits(indices, seed, epoch, Stream.CUTOUT_COLUMN), width) - side // 2
    boxes = Boxes(top.clamp(min=0), (top + side).clamp(max=height), left.clamp(min=0), (left + side).clamp(max=width))
    return images.masked_fill(boxes.mask(height, width), 0)
