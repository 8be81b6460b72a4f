"""Affine maps of whole batches: nearest pixel, black where the source is outside."""

import math

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

Matrix = tuple[float, float, float, float, float, float]
"""Where a pixel comes from: x' = a x + b y + c and y' = d x + e y + f, in pixels from the middle of the image."""

IDENTITY: Matrix = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def shear_x(slope: float, height: int) -> Matrix:
    """Rows moved left, the more so the lower; the upper border stays."""
    return (1.0, slope, slope * height / 2, 0.0, 1.0, 0.0)


def shear_y(slope: float, width: int) -> Matrix:
    """Columns moved up, the more so the farther right; the left border stays."""
    return (1.0, 0.0, 0.0, slope, 1.0, slope * width / 2)


def translate(right: int, down: int) -> Matrix:
    """Moved by whole pixels."""
    return (1.0, 0.0, float(-right), 0.0, 1.0, float(-down))


def rotate(degrees: float) -> Matrix:
    """Turned counterclockwise around the middle."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (cosine, -sine, 0.0, sine, cosine, 0.0)


def warp(images: UInt8[Tensor, "b c h w"], matrices: Float32[Tensor, "b 6"]) -> UInt8[Tensor, "b c h w"]:
    """Each image by its own matrix, in one gather."""
    num_channels, height, width = images.shape[1:]
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    a, b, c, d, e, f = matrices[:, :, None, None].unbind(1)
    columns = (a * x + b * y + c + (width - 1) / 2).round_()  # b h w
    rows = (d * x + e * y + f + (height - 1) / 2).round_()
    outside = (columns < 0) | (columns >= width) | (rows < 0) | (rows >= height)
    source = (rows * width + columns).masked_fill_(outside, 0).to(torch.int64).flatten(1)
    moved = images.flatten(2).gather(2, source[:, None].expand(-1, num_channels, -1)).view_as(images)
    return moved.masked_fill_(outside[:, None], 0)
