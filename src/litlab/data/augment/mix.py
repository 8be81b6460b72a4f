"""Mixup and cutmix: each training image takes something of another, and a share of its label."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from litlab.data.augment.cutout import Boxes
from litlab.data.random_numbers import Stream, bits_of, random_below, symmetric_beta


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup (arXiv 1710.09412) and cutmix (arXiv 1905.04899), truly per sample.

    Everything is a function of (seed, epoch, index of the image), so equal for any number of ranks.

    mixup, cutmix: alpha of the Beta(alpha, alpha) that the image's own share is drawn from; 0 for off. With both on,
        an image takes one of them, with probability one half.
    """

    seed: int
    mixup: int | float
    cutmix: int | float

    @property
    def active(self) -> bool:
        """Whether a batch needs partners."""
        return self.mixup > 0 or self.cutmix > 0

    def partners(self, indices: Int64[Tensor, " b"], members: Int64[Tensor, " n"], epoch: int) -> Int64[Tensor, " b"]:
        """For each image the index of another training image, any of the members (itself once in n times)."""
        return members[random_below(bits_of(indices, self.seed, epoch, Stream.PARTNER), len(members))]

    def __call__(
        self,
        images: Float[Tensor, "b c h w"],
        partner_images: Float[Tensor, "b c h w"],
        indices: Int64[Tensor, " b"],
        epoch: int,
    ) -> tuple[Float[Tensor, "b c h w"], Float32[Tensor, " b"]]:
        """Mixed images, and the share of each that is its own: the weight of its own label."""
        if not self.active:
            return images, torch.ones(len(images), device=images.device)
        height, width = images.shape[-2:]
        takes_box = self.takes_box(indices, epoch)
        share = torch.ones(len(images), device=images.device)
        mixed = images
        if self.mixup > 0:
            share = torch.where(takes_box, share, self.mixup_share(indices, epoch))
            mixed = blend(images, partner_images, share)
        if self.cutmix > 0:
            boxes = self.cutmix_boxes(indices, epoch, height, width)
            share = torch.where(takes_box, 1 - boxes.area_share(height, width), share)
            mixed = torch.where(boxes.mask(height, width) & takes_box[:, None, None, None], partner_images, mixed)
        return mixed, share

    def takes_box(self, indices: Int64[Tensor, " b"], epoch: int) -> Bool[Tensor, " b"]:
        """True where an image takes cutmix, False where it takes mixup."""
        if self.mixup > 0 and self.cutmix > 0:
            return random_below(bits_of(indices, self.seed, epoch, Stream.MIX_KIND), 2) == 1
        return torch.full_like(indices, self.cutmix > 0, dtype=torch.bool)

    def mixup_share(self, indices: Int64[Tensor, " b"], epoch: int) -> Float32[Tensor, " b"]:
        """Each image's own share under mixup."""
        return self._beta(self.mixup, indices, epoch)

    def cutmix_boxes(self, indices: Int64[Tensor, " b"], epoch: int, height: int, width: int) -> Boxes:
        """What each image takes of its partner under cutmix: its own proportions, around any pixel, clipped."""
        half_side = (1 - self._beta(self.cutmix, indices, epoch)).sqrt() / 2  # of an image of side 1
        rows = self._extent(indices, epoch, Stream.CUTMIX_ROW, half_side, height)
        columns = self._extent(indices, epoch, Stream.CUTMIX_COLUMN, half_side, width)
        return Boxes(*rows, *columns)

    def _extent(
        self, indices: Tensor, epoch: int, stream: Stream, half_side: Tensor, size: int
    ) -> tuple[Tensor, Tensor]:
        centre = random_below(bits_of(indices, self.seed, epoch, stream), size)
        half = (half_side * size).to(torch.int64)
        return (centre - half).clamp(min=0), (centre + half).clamp(max=size)

    def _beta(self, alpha: int | float, indices: Tensor, epoch: int) -> Tensor:
        bits = (bits_of(indices, self.seed, epoch, stream) for stream in (Stream.MIX_RADIUS, Stream.MIX_ANGLE))
        return symmetric_beta(alpha, *bits)


def blend(
    images: Float[Tensor, "b c h w"], partner_images: Float[Tensor, "b c h w"], share: Float32[Tensor, " b"]
) -> Float[Tensor, "b c h w"]:
    """share * images + (1 - share) * partner_images; the very images where the share is 1."""
    return torch.lerp(partner_images, images, share.to(images.dtype)[:, None, None, None])
