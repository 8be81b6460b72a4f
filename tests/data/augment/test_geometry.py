"""Crop, flip and affine maps against slow references."""

import numpy as np
import torch
from support.pixels import NUM_IMAGES
from torch import Tensor

from litlab.data.augment import geometry as warp
from litlab.data.augment import shift_and_flip


def slow_reference(image: np.ndarray, down: int, right: int, flipped: bool, padding: int) -> np.ndarray:
    """Pad one image by reflection, crop the window and flip it."""
    _, height, width = image.shape
    padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode="reflect")
    window = padded[:, padding + down : padding + down + height, padding + right : padding + right + width]
    return window[:, :, ::-1] if flipped else window


def test_crop_and_flip_against_a_slow_reference() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (200, 3, 9, 12), dtype=np.uint8)
    down, right = random.integers(-5, 6, (2, 200))
    flipped = random.random(200) < 0.5
    fast = shift_and_flip(*(torch.from_numpy(values) for values in (images, down, right, flipped)))
    slow = [slow_reference(*row, padding=5) for row in zip(images, down, right, flipped, strict=True)]
    np.testing.assert_array_equal(fast.numpy(), np.stack(slow))


def test_identity_keeps_every_pixel(images: Tensor) -> None:
    matrices = torch.tensor([warp.IDENTITY], dtype=torch.float32).expand(NUM_IMAGES, 6)
    assert torch.equal(warp.warp(images, matrices), images)
