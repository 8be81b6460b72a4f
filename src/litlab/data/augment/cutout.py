"""Cutout: a square of each image is erased."""

from jaxtyping import Float, Int64
from torch import Tensor

from litlab.data.augment.boxes import Boxes
from litlab.data.augment.draws import Stream, bits_of
from litlab.data.random_numbers import random_below


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
