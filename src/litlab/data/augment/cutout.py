"""Rectangles of pixels, one for each image of a batch."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor


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
