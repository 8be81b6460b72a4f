"""Awkward images for augmentations, and the comparison of pixels."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

NUM_IMAGES = 40


def awkward_images() -> Tensor:
    """Return noise, dark noise, smooth images, images of one or two gray levels, and one gray in three channels."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 3, 21, 24), dtype=torch.uint8, generator=random)
    pixels[10:20] //= 4
    pixels[20:30] = functional.gaussian_blur(pixels[20:30], [9, 9])
    for row, level in enumerate((0, 7, 255)):
        pixels[row] = level
    pixels[3] = (pixels[3] > 100) * 200
    pixels[4] = pixels[4, :1]
    return pixels


def differences(left: Tensor, right: Tensor) -> tuple[int, float]:
    """Return the largest difference in gray levels, and the fraction of pixels that differ."""
    assert left.dtype == right.dtype == torch.uint8
    levels = (left.int() - right.int()).abs()
    return int(levels.max()), (levels > 0).double().mean().item()
