"""Augmentation pipeline of single images: all operations in their order."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from litlab.data.augment.color import ColorJitter
from litlab.data.augment.cutout import cut_out
from litlab.data.augment.geometry import random_flips, random_shifts, shift_and_flip
from litlab.data.augment.rand_augment import RandAugment


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Augmentation of training images: a function of (seed, epoch, index of the image), on CPU and GPU alike.

    Attributes:
        seed: Seed of the draws.
        crop_padding: Pixels of reflection on each side that the crop is taken from, less than the image's height and
            width; 0 for no crop.
        flip: True to flip left and right with probability one half; "alternating" for every other epoch.
        color_jitter: brightness, contrast, saturation and hue, see `ColorJitter`; None for none.
        rand_augment: num_ops and magnitude, see `RandAugment`; None for none.
        cutout: Side of the erased square in pixels; 0 for none.
    """

    seed: int
    crop_padding: int
    flip: bool | Literal["alternating"]
    color_jitter: Mapping[str, int | float] | None
    rand_augment: Mapping[str, int] | None
    cutout: int

    def on_pixels(
        self, images: UInt8[Tensor, "b c h w"], indices: Int64[Tensor, " b"], epoch: int
    ) -> UInt8[Tensor, "b c h w"]:
        """Crop, flip, then apply RandAugment and color jitter, before the images are normalized."""
        if self.crop_padding > 0 or self.flip:
            down, right = random_shifts(indices, seed=self.seed, epoch=epoch, crop_padding=self.crop_padding)
            flipped = random_flips(indices, seed=self.seed, epoch=epoch, flip=self.flip)
            images = shift_and_flip(images, down, right, flipped)
        if self.rand_augment is not None:
            images = RandAugment(seed=self.seed, **self.rand_augment)(images, indices, epoch)
        if self.color_jitter is not None:
            images = ColorJitter(seed=self.seed, **self.color_jitter)(images, indices, epoch)
        return images

    def on_normalized(
        self, images: Float[Tensor, "b c h w"], indices: Int64[Tensor, " b"], epoch: int
    ) -> Float[Tensor, "b c h w"]:
        """Apply cutout, after the images are normalized: zero is the mean."""
        return images if self.cutout == 0 else cut_out(images, indices, epoch, seed=self.seed, side=self.cutout)
