"""RandAugment against torchvision, one image at a time with the same decisions."""

import pytest
import torch
from scipy import stats
from support.pixels import NUM_IMAGES, differences
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from litlab.data.augment.rand_augment import NUM_BINS, OPERATIONS, RandAugment


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 4, 9, 20, NUM_BINS - 1])
def test_every_operation_of_rand_augment(images: Tensor, magnitude: int, num_channels: int) -> None:
    """Compare exactly, but for one gray level where torchvision fuses, and for source points between two pixels."""
    images = images[:, :num_channels]
    policy, reference = RandAugment(seed=0, num_ops=1, magnitude=magnitude), v2.RandAugment(magnitude=magnitude)
    for number, name in enumerate(OPERATIONS):
        for negative in (False, True):
            operation, sign = torch.full((NUM_IMAGES,), number), torch.full((NUM_IMAGES,), negative)
            amounts, signed = reference._AUGMENTATION_SPACE[name]
            table = amounts(NUM_BINS, *images.shape[2:])
            amount = 0.0 if table is None else float(table[magnitude]) * (-1 if signed and negative else 1)
            expected = reference._apply_image_or_video_transform(
                images, name, amount, interpolation=InterpolationMode.NEAREST, fill=reference._fill
            )
            clear = between_pixels(name, amount, *images.shape[2:]).logical_not()
            level, fraction = differences(policy.apply(images, operation, sign)[..., clear], expected[..., clear])
            fused = name in ("Color", "Contrast", "Sharpness")
            assert level <= fused, (name, negative)
            assert fraction < 0.15, (name, negative)


def between_pixels(name: str, amount: float, height: int, width: int) -> Tensor:
    """Mark pixels whose source is half-way between two, to 0.001 pixels: the nearest is a matter of rounding."""
    y, x = torch.meshgrid(*(torch.arange(size, dtype=torch.float64) for size in (height, width)), indexing="ij")
    angle = torch.tensor(amount, dtype=torch.float64).deg2rad()
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    sources = {
        "ShearX": [x + amount * (y + 0.5)],
        "ShearY": [y + amount * (x + 0.5)],
        "Rotate": [
            (x - middle_x) * angle.cos() - (y - middle_y) * angle.sin() + middle_x,
            (x - middle_x) * angle.sin() + (y - middle_y) * angle.cos() + middle_y,
        ],
    }
    between = torch.zeros(height, width, dtype=torch.bool)
    for source in sources.get(name, []):
        between |= ((source - source.floor()) - 0.5).abs() < 1e-3
    assert between.double().mean() < 0.25
    return between


def test_rand_augment_does_the_drawn_operations_in_turn(images: Tensor) -> None:
    policy, indices = RandAugment(seed=4, num_ops=3, magnitude=9), torch.arange(NUM_IMAGES)
    operations, negative = policy.choices(indices, 1)
    out = policy(images, indices, 1)
    for row in range(NUM_IMAGES):
        expected = images[row : row + 1]
        for number in range(3):
            expected = policy.apply(expected, operations[row, number, None], negative[row, number, None])
        assert torch.equal(out[row], expected[0])


def test_the_choices_of_rand_augment_are_uniform_and_independent() -> None:
    operations, negative = RandAugment(seed=0, num_ops=2, magnitude=9).choices(torch.arange(20_000), 0)
    pairs = torch.bincount(operations[:, 0] * 28 + operations[:, 1] * 2 + negative[:, 0], minlength=392)
    assert len(pairs) == 392
    assert stats.chisquare(pairs.numpy()).pvalue > 0.001
