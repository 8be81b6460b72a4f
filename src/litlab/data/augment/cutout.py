"""Cutout, by rectangles of pixels that cutmix uses, too."""

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


def cutout_boxes(indices: Int64[Tensor, " b"], *, seed: int, epoch: int, side: int, height: int, width: int) -> Boxes:
    """Draw squares of `side` pixels, clipped at the border; the center is any pixel of the image.

    DeVries and Taylor, arXiv 1708.04552. The center of an even side is the pixel below and right of the middle.
    """
    top = random_below(random_bits(indices, seed, epoch, Stream.CUTOUT_ROW), height) - side // 2
    left = random_below(random_bits(indices, seed, epoch, Stream.CUTOUT_COLUMN), width) - side // 2
    return Boxes(top.clamp(min=0), (top + side).clamp(max=height), left.clamp(min=0), (left + side).clamp(max=width))


def erase(images: Float[Tensor, "b c h w"], boxes: Boxes) -> Float[Tensor, "b c h w"]:
    """Set pixels inside the boxes to zero, which is the data set's mean once images are normalized."""
    return images.masked_fill(boxes.mask(*images.shape[-2:]), 0)
