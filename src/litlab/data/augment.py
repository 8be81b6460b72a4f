"""Random crop and flip of a whole batch: one gather, no loop over images, no random state."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from litlab.data.random_numbers import random_below, random_bits

_ROWS, _COLUMNS, _FLIPS = 1, 2, 3  # streams of random numbers


@dataclass(frozen=True, kw_only=True)
class CropFlip:
    """Crops out of the image padded by reflection, then flips every other image.

    What an image gets is a function of (seed, epoch, its index), on CPU and GPU alike.

    crop_padding: pixels on each side, less than the image's height and width; 0 for no crop.
    flip: whether to mirror left and right with probability one half.
    """

    seed: int
    crop_padding: int
    flip: bool

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], indices: Int64[Tensor, " b"], epoch: int
    ) -> UInt8[Tensor, "b c h w"]:
        if self.crop_padding == 0 and not self.flip:
            return images
        down = self._shifts(indices, epoch, _ROWS)
        right = self._shifts(indices, epoch, _COLUMNS)
        if self.flip:
            mirrored = random_below(random_bits(indices, self.seed, epoch, _FLIPS), 2) == 1
        else:
            mirrored = torch.zeros_like(indices, dtype=torch.bool)
        return shift_and_mirror(images, down, right, mirrored)

    def _shifts(self, indices: Tensor, epoch: int, stream: int) -> Tensor:
        bits = random_bits(indices, self.seed, epoch, stream)
        return random_below(bits, 2 * self.crop_padding + 1) - self.crop_padding


def shift_and_mirror(
    images: UInt8[Tensor, "b c h w"],
    down: Int64[Tensor, " b"],
    right: Int64[Tensor, " b"],
    mirrored: Bool[Tensor, " b"],
) -> UInt8[Tensor, "b c h w"]:
    """Each image's window moved by its own number of pixels (reflected at the borders), then mirrored where asked.

    Of seven ways to do it the flat gather was among the two fastest and the shortest (270,000 images/s, one CPU
    thread, 32x32x3; grouping images by shift 48,000; slicing a padded copy in a loop 80,000).
    """
    _, num_channels, height, width = images.shape
    rows = _reflected(torch.arange(height, device=images.device) + down[:, None], height)
    columns = torch.arange(width, device=images.device).expand(len(images), width)
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    columns = _reflected(columns + right[:, None], width)
    source = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # b (h w)
    return images.flatten(2).gather(2, source[:, None, :].expand(-1, num_channels, -1)).view_as(images)


def _reflected(positions: Tensor, size: int) -> Tensor:
    """Positions outside 0..size-1 mirrored back in, without repeating the border pixel."""
    return (size - 1) - ((size - 1) - positions.abs()).abs()
