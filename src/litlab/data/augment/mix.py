"""Mixup and cutmix of a batch with its partners."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from litlab.data.augment.cutout import Boxes
from litlab.data.random_numbers import Stream, random_below, random_bits, symmetric_beta


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899), drawn for each image.

    Everything is a function of (seed, epoch, index of the image), so equal for any number of ranks. With both on, each
    image is mixed by one of them, with probability one half.

    Attributes:
        seed: Seed of the draws.
        mixup: alpha of Beta(alpha, alpha), from which lam is drawn; 0 for off.
        cutmix: The same for cutmix.
    """

    seed: int
    mixup: int | float
    cutmix: int | float

    @property
    def active(self) -> bool:
        """True if a batch needs partners."""
        return self.mixup > 0 or self.cutmix > 0

    def partners(
        self, indices: Int64[Tensor, " b"], candidates: Int64[Tensor, " n"], epoch: int
    ) -> Int64[Tensor, " b"]:
        """Draw the index of a partner for each image from the candidates (itself once in n times)."""
        return candidates[random_below(self._bits(indices, epoch, Stream.PARTNER), len(candidates))]

    def __call__(
        self,
        images: Float[Tensor, "b c h w"],
        partner_images: Float[Tensor, "b c h w"],
        indices: Int64[Tensor, " b"],
        epoch: int,
    ) -> tuple[Float[Tensor, "b c h w"], Float32[Tensor, " b"]]:
        """Mix images with their partners.

        Returns:
            The mixed images, and lam: the weight of each image's own label.
        """
        lam = torch.ones(len(images), device=images.device)
        height, width = images.shape[-2:]
        uses_cutmix = self.uses_cutmix(indices, epoch)
        mixed = images
        if self.mixup > 0:
            lam = torch.where(uses_cutmix, lam, self._beta(self.mixup, indices, epoch))
            mixed = torch.lerp(partner_images, images, lam.to(images.dtype)[:, None, None, None])
        if self.cutmix > 0:
            boxes = self.cutmix_boxes(indices, epoch, height, width)
            lam = torch.where(uses_cutmix, 1 - boxes.area_fraction(height, width), lam)
            mixed = torch.where(boxes.mask(height, width) & uses_cutmix[:, None, None, None], partner_images, mixed)
        return mixed, lam

    def uses_cutmix(self, indices: Int64[Tensor, " b"], epoch: int) -> Bool[Tensor, " b"]:
        """Draw the method of each image: True for cutmix, False for mixup."""
        if self.mixup > 0 and self.cutmix > 0:
            return random_below(self._bits(indices, epoch, Stream.MIX_CHOICE), 2) == 1
        return torch.full_like(indices, self.cutmix > 0, dtype=torch.bool)

    def cutmix_boxes(self, indices: Int64[Tensor, " b"], epoch: int, height: int, width: int) -> Boxes:
        """Draw each image's box under cutmix: of the image's proportions, around any pixel, clipped."""
        half_side = (1 - self._beta(self.cutmix, indices, epoch)).sqrt() / 2  # of an image of side 1
        rows = self._extent(indices, epoch, Stream.CUTMIX_ROW, half_side, height)
        columns = self._extent(indices, epoch, Stream.CUTMIX_COLUMN, half_side, width)
        return Boxes(*rows, *columns)

    def _extent(
        self, indices: Tensor, epoch: int, stream: Stream, half_side: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        center = random_below(self._bits(indices, epoch, stream), size)
        half = (half_side * size).to(torch.int64)
        return (center - half).clamp(min=0), (center + half).clamp(max=size)

    def _beta(self, alpha: int | float, indices: Tensor, epoch: int) -> Tensor:
        radius, angle = (self._bits(indices, epoch, stream) for stream in (Stream.MIX_RADIUS, Stream.MIX_ANGLE))
        return symmetric_beta(alpha, radius, angle)

    def _bits(self, indices: Tensor, epoch: int, stream: Stream) -> Tensor:
        return random_bits(indices, self.seed, epoch, stream)
