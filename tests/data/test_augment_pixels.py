"""Colour jitter and RandAugment against torchvision, one image at a time with the same decisions."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as reference

from litlab.data.augment import color
from litlab.data.augment import geometry as warp
from litlab.data.augment.color import ColorJitter
from litlab.data.augment.rand_augment import NUM_BINS, OPERATIONS, RandAugment
from litlab.data.module import check_image_shape
from litlab.errors import UserError

NUM_IMAGES = 40
Operation = Callable[..., Tensor]


@pytest.fixture(scope="module")
def images() -> Tensor:
    """Noise, dark noise, smooth images, and the awkward: of one grey level, of two, grey in three channels."""
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, 3, 21, 24), dtype=torch.uint8, generator=random)
    pixels[10:20] //= 4
    pixels[20:30] = reference.gaussian_blur(pixels[20:30], [9, 9])
    for row, level in enumerate((0, 7, 255)):
        pixels[row] = level
    pixels[3] = (pixels[3] > 100) * 200
    pixels[4] = pixels[4, :1]
    return pixels


def differences(ours: Tensor, theirs: Tensor) -> tuple[int, float]:
    """The largest, in grey levels, and the share of pixels that differ at all."""
    assert ours.dtype == theirs.dtype == torch.uint8
    levels = (ours.int() - theirs.int()).abs()
    return int(levels.max()), (levels > 0).double().mean().item()


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (color.adjust_brightness, reference.adjust_brightness, 0, 2),
        (color.adjust_contrast, reference.adjust_contrast, 0, 2),
        (color.adjust_saturation, reference.adjust_saturation, 0, 2),
        (color.adjust_hue, reference.adjust_hue, -0.5, 0.5),
        (color.adjust_sharpness, reference.adjust_sharpness, 0, 2),
    ],
)
def test_color_operations(
    images: Tensor, num_channels: int, ours: Operation, theirs: Operation, low: float, high: float
) -> None:
    """Brightness is exact. In the others torchvision fuses products with sums, so where the value is a whole number it
    may be cut to the one below: one grey level.
    """
    images = images[:, :num_channels]
    amounts = low + (high - low) * torch.rand(NUM_IMAGES, generator=torch.Generator().manual_seed(1))
    expected = torch.stack([theirs(image, float(each)) for image, each in zip(images, amounts, strict=True)])
    level, share = differences(ours(images, amounts), expected)
    assert level <= (0 if ours is color.adjust_brightness else 1)
    assert share < 0.002


@pytest.mark.parametrize("num_channels", [1, 3])
def test_operations_on_tables_of_grey_levels_are_exact(images: Tensor, num_channels: int) -> None:
    images = images[:, :num_channels]
    for num_bits in range(9):
        assert torch.equal(color.posterize(images, num_bits), reference.posterize(images, num_bits))
    for threshold in (0, 100.5, 128, 255):
        assert torch.equal(color.solarize(images, threshold), reference.solarize(images, threshold))
    for ours, theirs in ((color.autocontrast, reference.autocontrast), (color.equalize, reference.equalize)):
        assert torch.equal(ours(images), torch.stack([theirs(image) for image in images]))


def test_images_too_small_to_smooth_stay(images: Tensor) -> None:
    narrow = images[..., :2]
    assert torch.equal(color.adjust_sharpness(narrow, torch.full((NUM_IMAGES,), 1.7)), narrow)


def test_hue_by_nothing_changes_nothing(images: Tensor) -> None:
    assert torch.equal(color.adjust_hue(images, torch.zeros(NUM_IMAGES)), images)


def test_color_jitter(images: Tensor) -> None:
    """All four in each image's own order: a difference of one level may grow in the operations that follow."""
    jitter, indices = (
        ColorJitter(seed=3, brightness=0.5, contrast=0.4, saturation=0.3, hue=0.1),
        torch.arange(NUM_IMAGES),
    )
    drawn = jitter.amounts(indices, 2)
    kernels = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    expected = images.clone()
    for row in range(NUM_IMAGES):
        for number in drawn.order[row].tolist():
            expected[row] = kernels[number](expected[row], float(drawn[number][row]))
    level, share = differences(jitter(images, indices, 2), expected)
    assert level <= 3
    assert share < 0.005


def test_color_jitter_leaves_out_what_is_zero(images: Tensor) -> None:
    only = ColorJitter(seed=3, brightness=0, contrast=0, saturation=0.9, hue=0)
    indices = torch.arange(NUM_IMAGES)
    assert torch.equal(only(images, indices, 0), color.adjust_saturation(images, only.amounts(indices, 0).saturation))
    assert torch.equal(only(images[:, :1], indices, 0), images[:, :1])


def test_the_amounts_of_color_jitter_are_uniform() -> None:
    drawn = ColorJitter(seed=0, brightness=0.5, contrast=1.5, saturation=0.2, hue=0.1).amounts(torch.arange(10_000), 0)
    ranges = ((0.5, 1.5), (0, 2.5), (0.8, 1.2), (-0.1, 0.1))
    for amounts, (low, high) in zip(drawn[:4], ranges, strict=True):
        assert low <= amounts.min()
        assert amounts.max() <= high
        assert stats.kstest(amounts.numpy(), stats.uniform(low, high - low).cdf).pvalue > 0.001
    orders = (drawn.order * torch.tensor([64, 16, 4, 1])).sum(1)
    counts = torch.bincount(orders)
    assert len(counts[counts > 0]) == 24
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.001


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("magnitude", [0, 4, 9, 20, NUM_BINS - 1])
def test_every_operation_of_rand_augment(images: Tensor, magnitude: int, num_channels: int) -> None:
    """Exact, but for one grey level where torchvision fuses (above), and for source points between two pixels."""
    images = images[:, :num_channels]
    ours, theirs = RandAugment(seed=0, num_ops=1, magnitude=magnitude), v2.RandAugment(magnitude=magnitude)
    for number, name in enumerate(OPERATIONS):
        for negative in (False, True):
            operation, sign = torch.full((NUM_IMAGES,), number), torch.full((NUM_IMAGES,), negative)
            amounts, signed = theirs._AUGMENTATION_SPACE[name]
            table = amounts(NUM_BINS, *images.shape[2:])
            amount = 0.0 if table is None else float(table[magnitude]) * (-1 if signed and negative else 1)
            expected = theirs._apply_image_or_video_transform(
                images, name, amount, interpolation=InterpolationMode.NEAREST, fill=theirs._fill
            )
            clear = between_pixels(name, amount, *images.shape[2:]).logical_not()
            level, share = differences(ours.apply(images, operation, sign)[..., clear], expected[..., clear])
            fused = name in ("Color", "Contrast", "Sharpness")
            assert level <= fused, (name, negative)
            assert share < 0.15, (name, negative)


def between_pixels(name: str, amount: float, height: int, width: int) -> Tensor:
    """Where the nearest pixel is a matter of rounding: the source is half-way between two, to 0.001 pixels."""
    x = torch.arange(width, dtype=torch.float64) + 0 * torch.arange(height)[:, None]
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0 * torch.arange(width)
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
        for place in range(3):
            expected = policy.apply(expected, operations[row, place, None], negative[row, place, None])
        assert torch.equal(out[row], expected[0])


def test_the_choices_of_rand_augment_are_uniform_and_independent() -> None:
    drawn = RandAugment(seed=0, num_ops=2, magnitude=9).choices(torch.arange(20_000), 0)
    pairs = torch.bincount(
        drawn.operations[:, 0] * 28 + drawn.operations[:, 1] * 2 + drawn.negative[:, 0], minlength=392
    )
    assert len(pairs) == 392
    assert stats.chisquare(pairs.numpy()).pvalue > 0.001


class Elsewhere(Tensor):
    """Says that it is not on the CPU, and so takes the way of other devices."""

    is_cpu = False


def test_other_devices_compute_the_same(images: Tensor) -> None:
    indices = torch.arange(NUM_IMAGES)
    for operations in (
        RandAugment(seed=0, num_ops=2, magnitude=9),
        ColorJitter(seed=3, brightness=0.5, contrast=0.4, saturation=0.3, hue=0.1),
    ):
        elsewhere = operations(images.as_subclass(Elsewhere), indices, 0)
        assert isinstance(elsewhere, Elsewhere)
        assert torch.equal(elsewhere.as_subclass(Tensor), operations(images, indices, 0))


def test_identity_keeps_every_pixel(images: Tensor) -> None:
    matrices = torch.tensor([warp.IDENTITY], dtype=torch.float32).expand(NUM_IMAGES, 6)
    assert torch.equal(warp.warp(images, matrices), images)


@pytest.mark.parametrize("key", ["color_jitter", "rand_augment"])
def test_colors_of_two_channels_are_refused(key: str) -> None:
    settings: Any = {"crop_padding": 0, "cutout": 0, "progressive_sizes": None}
    settings |= {"color_jitter": None, "rand_augment": None}
    check_image_shape(settings, (2, 8, 8))
    check_image_shape({**settings, key: {}}, (1, 8, 8))
    with pytest.raises(UserError, match=f"data.{key} is for images of 1 .* or 3 .* not of 2: set it to null"):
        check_image_shape({**settings, key: {}}, (2, 8, 8))
