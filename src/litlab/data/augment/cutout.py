"""Rectangles of pixels, one for each image of a batch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from litlab.data.random_numbers import Stream, bits_of, random_below


class Boxes(NamedTuple):
    """Rows top..bottom-1 and columns left..right-1 of each image, each of shape b."""

    top: Int64[Tensor, " b"]
    bottom: Int64[Tensor, " b"]
    left: Int64[Tensor, " b"]
    right: Int64[Tensor, " b"]

    def mask(self, height: int, width: int) -> Bool[Tensor, "b 1 h w"]:
        """True inside."""
        rows = _between(self.top, self.bottom, height)
        columns = _between(self.left, self.right, width)
        return (rows[:, :, None] & columns[:, None, :])[:, None]

    def area_share(self, height: int, width: int) -> Float32[Tensor, " b"]:
        """Area inside, of images that contain the boxes, as a share of the image."""
        pixels = (self.bottom - self.top) * (self.right - self.left)
        return pixels.to(torch.float32) / (height * width)


def _between(first: Tensor, end: Tensor, size: int) -> Bool[Tensor, "b size"]:
    positions = torch.arange(size, device=first.device)
    return (positions >= first[:, None]) & (positions < end[:, None])


def cutout_boxes(indices: Int64[Tensor, " b"], *, seed: int, epoch: int, side: int, height: int, width: int) -> Boxes:
    """Squares of `side` pixels, clipped at the border: the centre is any pixel of the image.

    DeVries and Taylor, arXiv 1708.04552. The centre of an even side is the pixel below and right of the middle.
    """
    top = random_below(bits_of(indices, seed, epoch, Stream.CUTOUT_ROW), height) - side // 2
    left = random_below(bits_of(indices, seed, epoch, Stream.CUTOUT_COLUMN), width) - side // 2
    return Boxes(top.clamp(min=0), (top + side).clamp(max=height), left.clamp(min=0), (left + side).clamp(max=width))


def erase(images: Float[Tensor, "b c h w"], boxes: Boxes) -> Float[Tensor, "b c h w"]:
    """Zero inside the boxes, which is the data set's mean once images are normalised."""
    return images.masked_fill(boxes.mask(*images.shape[-2:]), 0)
