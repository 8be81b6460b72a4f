"""Progressive resizing."""

import torch
from torch.nn import functional

from litlab.data.augment.geometry import shrink


def test_shrinking_is_antialiased_bilinear_resampling() -> None:
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for size in (32, 24, 16, 9):
        expected = functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
        torch.testing.assert_close(shrink(images, size), expected, rtol=0, atol=2e-6)
