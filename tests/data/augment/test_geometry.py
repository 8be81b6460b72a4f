"""Crop, flip and progressive resizing against slow references; test_rand_augment.py compares the affine maps."""

import numpy as np
import torch
from torch.nn import functional

from litlab.data.augment.geometry import epoch_size, shift_and_flip, shrink


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


def test_shrinking_is_antialiased_bilinear_resampling() -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for size in (32, 24, 16, 9):
        expected = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(shrink(images, size), expected, rtol=0, atol=2e-6)


def test_each_size_has_an_equal_number_of_epochs() -> None:
    assert [epoch_size([16, 24, 32], epoch, 7) for epoch in range(8)] == [16, 16, 16, 24, 24, 32, 32, 32]
    assert [epoch_size([24, 32], epoch, 1) for epoch in range(2)] == [24, 24]
