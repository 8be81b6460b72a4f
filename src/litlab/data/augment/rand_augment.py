"""RandAugment (Cubuk et al., arXiv 1909.13719): some of 14 operations for each image, all of one strength."""

from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from litlab.data.augment.choice import Operation, operate, unchanged
from litlab.data.augment.color import (
    autocontrast,
    brighten,
    change_contrast,
    equalize,
    posterize,
    saturate,
    sharpen,
    solarize,
)
from litlab.data.augment.geometry import IDENTITY, Matrix, rotate, shear_x, shear_y, translate, warp
from litlab.data.random_numbers import Stream, bits_of, random_below, random_streams

OPERATIONS = (
    *("Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"),
    *("Brightness", "Color", "Contrast", "Sharpness"),
    *("Posterize", "Solarize", "AutoContrast", "Equalize"),
)
NUM_BINS = 31
_NUM_WARPS = 6  # the first of the operations, identity included


class Choices(NamedTuple):
    """What each image gets, in the order in which it gets it."""

    operations: Int64[Tensor, "b num_ops"]  # places in OPERATIONS
    negative: Bool[Tensor, "b num_ops"]  # the sign of the strength, for operations that have one


@dataclass(frozen=True, kw_only=True)
class RandAugment:
    """As torchvision.transforms.v2.RandAugment with its defaults: nearest pixel, black outside.

    num_ops: operations for each image, drawn with replacement.
    magnitude: their strength, 0..30; 30 is a shear of 0.3, 45 % of the size, 30 degrees, a factor of 1 ± 0.9, 4 bits.
    """

    seed: int
    num_ops: int
    magnitude: int

    def choices(self, indices: Int64[Tensor, " b"], epoch: int) -> Choices:
        """Drawn from (seed, epoch, index of the image)."""
        bits = random_streams(bits_of(indices, self.seed, epoch, Stream.RAND_AUGMENT), 2 * self.num_ops)
        operations, signs = bits[:, : self.num_ops], bits[:, self.num_ops :]
        return Choices(random_below(operations, len(OPERATIONS)), random_below(signs, 2) == 1)

    def __call__(
        self, images: UInt8[Tensor, "b c h w"], indices: Int64[Tensor, " b"], epoch: int
    ) -> UInt8[Tensor, "b c h w"]:
        drawn = self.choices(indices, epoch)
        for operation, negative in zip(drawn.operations.unbind(1), drawn.negative.unbind(1), strict=True):
            images = self.operate(images, operation, negative)
        return images

    def operate(
        self, images: UInt8[Tensor, "b c h w"], operation: Int64[Tensor, " b"], negative: Bool[Tensor, " b"]
    ) -> UInt8[Tensor, "b c h w"]:
        """One of OPERATIONS for each image."""
        matrices = _matrices(self.magnitude, *images.shape[2:], images.device)
        matrices = matrices[operation.clamp(max=_NUM_WARPS - 1) + _NUM_WARPS * negative]
        strength = _strength(self.magnitude, 0.9)
        factors = torch.where(negative, 1 - strength, 1 + strength)
        num_bits = round(8 - _strength(self.magnitude, 4.0))
        threshold = 255 * _strength(self.magnitude, strongest=0.0, weakest=1.0)
        operations: list[Operation] = [
            (unchanged, ()),
            (warp, (matrices,)),
            *((blend, (factors,)) for blend in (brighten, saturate, change_contrast, sharpen)),
            *((partial(posterize, num_bits=num_bits), ()), (partial(solarize, threshold=threshold), ())),
            *((autocontrast, ()), (equalize, ())),
        ]
        kinds = torch.where(operation < _NUM_WARPS, operation.clamp(max=1), operation - (_NUM_WARPS - 2))
        return operate(images, kinds, operations)


@cache  # on a device that is not the CPU, making a tensor of numbers waits for all work before it
def _matrices(magnitude: int, height: int, width: int, device: torch.device) -> Float32[Tensor, "12 6"]:
    """Of the operations that warp: first all of them with a positive sign, then with a negative one."""
    slope, angle = _strength(magnitude, 0.3), _strength(magnitude, 30.0)
    across, down = (int(_strength(magnitude, 150 / 331 * size)) for size in (width, height))
    matrices: list[Matrix] = []
    for sign in (1, -1):
        shears = [shear_x(sign * slope, height), shear_y(sign * slope, width)]
        matrices += [IDENTITY, *shears, translate(sign * across, 0), translate(0, sign * down), rotate(sign * angle)]
    return torch.tensor(matrices, dtype=torch.float32, device=device)


@cache
def _strength(magnitude: int, strongest: float, weakest: float = 0.0) -> float:
    """As many float32 steps as torchvision takes: where a product is a whole number, its last bit decides."""
    return torch.linspace(weakest, strongest, NUM_BINS)[magnitude].item()
