"""What augmentations draw: one stream of random numbers for each decision, and the distributions made of them."""

from enum import IntEnum

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from litlab.data.random_numbers import random_bits


class Stream(IntEnum):
    """The last part of a key, so that no two decisions share their numbers. 0 is the order of the epochs."""

    CROP_ROW = 1
    CROP_COLUMN = 2
    FLIP = 3
    CUTOUT_ROW = 4
    CUTOUT_COLUMN = 5
    PARTNER = 6
    MIX_KIND = 7
    MIX_RADIUS = 8
    MIX_ANGLE = 9
    CUTMIX_ROW = 10
    CUTMIX_COLUMN = 11
    JITTER = 12
    RAND_AUGMENT = 13


def uniform(bits: Int64[Tensor, "*n"]) -> Float32[Tensor, "*n"]:
    """Random bits -> numbers strictly between 0 and 1: the middles of 2**23 equal intervals, exact in float32."""
    return (((bits >> 41) & (2**23 - 1)).to(torch.float32) + 0.5) * 2**-23


def symmetric_beta(
    alpha: int | float, radius_bits: Int64[Tensor, " b"], angle_bits: Int64[Tensor, " b"]
) -> Float32[Tensor, " b"]:
    """Numbers of Beta(alpha, alpha), alpha > 0, from two uniform ones each, without rejection.

    Student's t of 2 alpha degrees of freedom by Bailey's polar method (Mathematics of Computation 62, 1994), and Beta
    as a function of it; multiplied out so that nothing overflows for a small alpha.
    """
    power = uniform(radius_bits).pow(1 / alpha)
    cosine = torch.cos(2 * torch.pi * uniform(angle_bits))
    spread = (1 - power) * cosine.square()
    return 0.5 + 0.5 * cosine.sign() * torch.sqrt(spread / (power + spread))


def bits_of(indices: Int64[Tensor, " b"], seed: int, epoch: int, stream: Stream) -> Int64[Tensor, " b"]:
    """The 64 random bits of each image for one decision."""
    return random_bits(indices, seed, epoch, stream)
