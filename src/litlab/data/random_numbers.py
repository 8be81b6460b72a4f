"""Random numbers as a function of a key and a counter.

The generator is SplitMix64 (Steele, Lea and Flood 2014) in wrapping int64 arithmetic: exact, so equal on every device,
for every number of threads and in every order, and without a state that a resume would have to restore.
"""

from enum import IntEnum

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

_MASK = 2**64 - 1


class Stream(IntEnum):
    """Last part of a key, which gives each random decision numbers of its own."""

    ORDER = 0
    CROP_ROW = 1
    CROP_COLUMN = 2
    FLIP = 3
    CUTOUT_ROW = 4
    CUTOUT_COLUMN = 5
    PARTNER = 6
    MIX_CHOICE = 7
    MIX_RADIUS = 8
    MIX_ANGLE = 9
    CUTMIX_ROW = 10
    CUTMIX_COLUMN = 11
    JITTER = 12
    RAND_AUGMENT = 13
    TRANSFORM = 14
    LOW_LIGHT_STOPS = 15
    LOW_LIGHT_NOISE = 16
    HARD_IMAGES = 17


def random_bits(counters: Int64[Tensor, "*n"], *key: int) -> Int64[Tensor, "*n"]:
    """Hash each counter under the key (any integers) to 64 random bits, on the counters' device."""
    return _mix(_mix(counters) ^ _mix_key(key))


def random_sequences(starts: Int64[Tensor, " n"], length: int) -> Int64[Tensor, "n length"]:
    """Generate SplitMix64's own sequence from each start: many random bits for the price of one hash each."""
    return _mix(starts[:, None] + torch.arange(length, device=starts.device) * _GAMMA)


def random_below(bits: Int64[Tensor, "*n"], bound: int) -> Int64[Tensor, "*n"]:
    """Map random bits to integers in 0..bound-1 (bound to 2**31), by their upper half."""
    return (((bits >> 33) & (2**31 - 1)) * bound) >> 31


def random_order(indices: Int64[Tensor, " n"], *key: int) -> Int64[Tensor, " n"]:
    """Shuffle the indices by the key; the order of two indices depends on no other index."""
    return indices[torch.argsort(random_bits(indices, *key), stable=True)]


def uniform(bits: Int64[Tensor, "*n"]) -> Float32[Tensor, "*n"]:
    """Map random bits to numbers strictly between 0 and 1: centers of 2**23 equal intervals, exact in float32."""
    return (((bits >> 41) & (2**23 - 1)).to(torch.float32) + 0.5) * 2**-23


def symmetric_beta(
    alpha: int | float, radius_bits: Int64[Tensor, " b"], angle_bits: Int64[Tensor, " b"]
) -> Float32[Tensor, " b"]:
    """Map two sets of random bits to numbers of Beta(alpha, alpha), alpha > 0, without rejection.

    Student's t of 2 alpha degrees of freedom by Bailey's polar method (Mathematics of Computation 62, 1994), and Beta
    as a function of it; multiplied out so that nothing overflows for a small alpha.
    """
    power = uniform(radius_bits).pow(1 / alpha)
    cosine = torch.cos(2 * torch.pi * uniform(angle_bits))
    spread = (1 - power) * cosine.square()
    return 0.5 + 0.5 * cosine.sign() * torch.sqrt(spread / (power + spread))


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MULTIPLIER_1 = _signed(0xBF58476D1CE4E5B9)
_MULTIPLIER_2 = _signed(0x94D049BB133111EB)


def _xor_shift(value: Tensor, bits: int) -> Tensor:
    """Compute value ^ (value >>> bits): int64 shifts extend the sign, so it is masked off."""
    return (value >> bits).bitwise_and_((1 << (64 - bits)) - 1).bitwise_xor_(value)


def _mix(value: Tensor) -> Tensor:
    value = value + _GAMMA
    value = _xor_shift(value, 30).mul_(_MULTIPLIER_1)
    value = _xor_shift(value, 27).mul_(_MULTIPLIER_2)
    return _xor_shift(value, 31)


def _mix_key(key: tuple[int, ...]) -> int:
    state = 0
    for part in key:  # the same in Python's integers: keys are mixed at every call
        state = ((state ^ (part & _MASK)) + _GAMMA) & _MASK
        state = ((state ^ (state >> 30)) * _MULTIPLIER_1) & _MASK
        state = ((state ^ (state >> 27)) * _MULTIPLIER_2) & _MASK
        state ^= state >> 31
    return _signed(state)
