"""RandAugment (Cubuk et al., arXiv 1909.13719): random operations of one magnitude for each image."""

import math
from dataclasses import dataclass
from functools import cache, partial

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from litlab.data.augment import color
from litlab.data.augment.geometry import warp
from litlab.data.random_numbers import Stream, random_below, random_bits, random_sequences

OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
)
NUM_BINS = 31
_NUM_WARPS = 6  # the first operations, identity included


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """Equivalent of torchvision.transforms.v2.RandAugment with its defaults: nearest pixel, black outside.

    Attributes:
        seed: Seed of the draws.
        num_ops: Number of operations for each image, drawn with replacement.
        magnitude: Their strength, 0..30; 30 is a shear of 0.3, a translation of 45 % of the size, a rotation of 30
            degrees, a factor of 1 ± 0.9, or 4 bits.
    """

    seed: int
    num_ops: int
    magnitude: int

    def choices(
        self, indices: Int64[Tensor, " b"], epoch: int
    ) -> tuple[Int64[Tensor, "b num_ops"], Bool[Tensor, "b num_ops"]]:
        """Draw positions in OPERATIONS from (seed, epoch, index of the image), with signs of the strengths."""
        bits = random_sequences(random_bits(indices, self.seed, epoch, Stream.RAND_AUGMENT), 2 * self.num_ops)
        operations, signs = bits[:, : self.num_ops], bits[:, self.num_ops :]
        return random_below(operations, len(OPERATIONS)), random_below(signs, 2) == 1

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], indices: Int64[Tensor, " b"], epoch: int
    ) -> UInt8[Tensor, "b c h w"]:
        """Apply the drawn operations to each image, in their order."""
        operations, negatives = self.choices(indices, epoch)
        for operation, negative in zip(operations.unbind(1), negatives.unbind(1), strict=True):
            images = self.apply(images, operation, negative)
        return images

    def apply(
        self, images: UInt8[Tensor, "b c h w"], operation: Int64[Tensor, " b"], negative: Bool[Tensor, " b"]
    ) -> UInt8[Tensor, "b c h w"]:
        """Apply one of OPERATIONS, by its position, to each image."""
        matrices = _matrices(self.magnitude, *images.shape[2:], images.device)
        matrices = matrices[operation.clamp(max=_NUM_WARPS - 1) + _NUM_WARPS * negative]
        strength = _strength(self.magnitude, 0.9)
        factors = torch.where(negative, 1 - strength, 1 + strength)
        num_bits = round(8 - _strength(self.magnitude, 4.0))
        threshold = 255 * _strength(self.magnitude, strongest=0.0, weakest=1.0)
        operations: list[color.Operation] = [
            (color.identity, ()),
            (warp, (matrices,)),
            (color.adjust_brightness, (factors,)),
            (color.adjust_saturation, (factors,)),
            (color.adjust_contrast, (factors,)),
            (color.adjust_sharpness, (factors,)),
            (partial(color.posterize, num_bits=num_bits), ()),
            (partial(color.solarize, threshold=threshold), ()),
            (color.autocontrast, ()),
            (color.equalize, ()),
        ]
        numbers = torch.where(operation < _NUM_WARPS, operation.clamp(max=1), operation - (_NUM_WARPS - 2))
        return color.dispatch(images, numbers, operations)


@cache  # creating a tensor from numbers synchronizes other devices than the CPU
def _matrices(magnitude: int, height: int, width: int, device: torch.device) -> Float32[Tensor, "12 6"]:
    """Return the matrices of the geometric operations: first with a positive sign, then with a negative one."""
    right, down = (int(_strength(magnitude, 150 / 331 * size)) for size in (width, height))
    matrices: list[tuple[float, ...]] = []
    for sign in (1, -1):
        slope, angle = sign * _strength(magnitude, 0.3), math.radians(sign * _strength(magnitude, 30.0))
        matrices += [
            (1, 0, 0, 0, 1, 0),
            (1, slope, slope * height / 2, 0, 1, 0),  # rows to the left, by their distance from the upper border
            (1, 0, 0, slope, 1, slope * width / 2),  # columns up, by their distance from the left border
            (1, 0, -sign * right, 0, 1, 0),
            (1, 0, 0, 0, 1, -sign * down),
            (math.cos(angle), -math.sin(angle), 0, math.sin(angle), math.cos(angle), 0),  # counterclockwise
        ]
    return torch.tensor(matrices, dtype=torch.float32, device=device)


@cache
def _strength(magnitude: int, strongest: float, weakest: float = 0.0) -> float:
    """Compute a strength in the same float32 steps as torchvision: the last bit decides when a product is whole."""
    return torch.linspace(weakest, strongest, NUM_BINS)[magnitude].item()
