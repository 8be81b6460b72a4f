"""Color operations and jitter against torchvision, one image at a time with the same decisions."""

import pytest
import torch
from scipy import stats
from support.pixels import NUM_IMAGES, differences
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from litlab.data.augment import color
from litlab.data.augment.color import ColorJitter
from litlab.data.augment.rand_augment import RandAugment

JITTER = ColorJitter(seed=3, brightness=0.5, contrast=0.4, saturation=0.3, hue=0.1)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("brightness", 0, 2), ("contrast", 0, 2), ("saturation", 0, 2), ("hue", -0.5, 0.5), ("sharpness", 0, 2)],
)
def test_color_operations(images: Tensor, num_channels: int, name: str, low: float, high: float) -> None:
    """Compare with torchvision; only brightness is exact.

    In the others torchvision fuses products with sums, so a whole number may be truncated to the one below.
    """
    images = images[:, :num_channels]
    amounts = low + (high - low) * torch.rand(NUM_IMAGES, generator=torch.Generator().manual_seed(1))
    operation, slow = (getattr(module, f"adjust_{name}") for module in (color, reference))
    expected = torch.stack([slow(image, float(amount)) for image, amount in zip(images, amounts, strict=True)])
    level, fraction = differences(operation(images, amounts), expected)
    assert level <= (name != "brightness")
    assert fraction < 0.002


@pytest.mark.parametrize("num_channels", [1, 3])
def test_operations_on_tables_of_gray_levels_are_exact(images: Tensor, num_channels: int) -> None:
    images = images[:, :num_channels]
    for num_bits in range(9):
        assert torch.equal(color.posterize(images, num_bits), reference.posterize(images, num_bits))
    for threshold in (0, 100.5, 128, 255):
        assert torch.equal(color.solarize(images, threshold), reference.solarize(images, threshold))
    for operation, expected in ((color.autocontrast, reference.autocontrast), (color.equalize, reference.equalize)):
        assert torch.equal(operation(images), torch.stack([expected(image) for image in images]))


def test_no_shift_of_hue_or_nothing_to_smooth_keeps_images(images: Tensor) -> None:
    assert torch.equal(color.adjust_hue(images, torch.zeros(NUM_IMAGES)), images)
    narrow = images[..., :2]
    assert torch.equal(color.adjust_sharpness(narrow, torch.full((NUM_IMAGES,), 1.7)), narrow)


def test_color_jitter(images: Tensor) -> None:
    """Compare all four in each image's own order: a difference of one level may grow in later operations."""
    indices = torch.arange(NUM_IMAGES)
    jitter_amounts = JITTER.amounts(indices, 2)
    kernels = [getattr(reference, f"adjust_{name}") for name in ("brightness", "contrast", "saturation", "hue")]
    expected = images.clone()
    for row in range(NUM_IMAGES):
        for number in jitter_amounts.order[row].tolist():
            expected[row] = kernels[number](expected[row], float(jitter_amounts[number][row]))
    level, fraction = differences(JITTER(images, indices, 2), expected)
    assert level <= 3
    assert fraction < 0.005


def test_color_jitter_leaves_out_what_is_zero(images: Tensor) -> None:
    only = ColorJitter(seed=3, brightness=0, contrast=0, saturation=0.9, hue=0)
    indices = torch.arange(NUM_IMAGES)
    assert torch.equal(only(images, indices, 0), color.adjust_saturation(images, only.amounts(indices, 0).saturation))
    assert torch.equal(only(images[:, :1], indices, 0), images[:, :1])


def test_the_amounts_of_color_jitter_are_uniform() -> None:
    jitter = ColorJitter(seed=0, brightness=0.5, contrast=1.5, saturation=0.2, hue=0.1)
    jitter_amounts = jitter.amounts(torch.arange(10_000), 0)
    ranges = ((0.5, 1.5), (0, 2.5), (0.8, 1.2), (-0.1, 0.1))
    for amounts, (low, high) in zip(jitter_amounts[:4], ranges, strict=True):
        assert low <= amounts.min()
        assert amounts.max() <= high
        assert stats.kstest(amounts.numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.001
    orders = (jitter_amounts.order * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.bincount(orders)
    assert len(counts[counts > 0]) == 24
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.001


class OtherDevice(Tensor):
    """Tensor that is dispatched as on other devices than the CPU."""

    is_cpu = False


@pytest.mark.parametrize("operations", [RandAugment(seed=0, num_ops=2, magnitude=9), JITTER])
def test_other_devices_compute_the_same(images: Tensor, operations: ColorJitter | RandAugment) -> None:
    indices = torch.arange(NUM_IMAGES)
    result = operations(images.as_subclass(OtherDevice), indices, 0)
    assert isinstance(result, OtherDevice)
    assert torch.equal(result.as_subclass(Tensor), operations(images, indices, 0))
