"""Color augmentation: operations on pixel values, each image by its own amount, with a random jitter of them.

As in torchvision.transforms.v2.functional, pixels are uint8 again after each operation, truncated rather than rounded.
No two steps of the arithmetic are fused, so that the bits are the same on every device and in every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from litlab.data.random_numbers import Stream, random_bits, random_sequences, uniform

Pixels = UInt8[Tensor, "b c h w"]
Factors = Float32[Tensor, " b"]
Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A function of images, with its further arguments: tensors with a row for each image of the batch."""


def adjust_brightness(images: Pixels, factors: Factors) -> Pixels:
    """Multiply pixels by a factor of at least 0; 0 is black, 1 the image."""
    return _to_pixels(images * factors[:, None, None, None])


def adjust_contrast(images: Pixels, factors: Factors) -> Pixels:
    """Extrapolate from the mean of the gray image for a factor above 1, interpolate below; 0 is the mean."""
    gray = _gray(images) if images.shape[1] == 3 else images
    # The sum of whole numbers is exact in float64, whatever order a device takes.
    mean = gray.sum((1, 2, 3), keepdim=True, dtype=torch.float64) / gray[0].numel() if len(images) else gray[:, :1]
    return _blend(images, mean.to(torch.float32), factors)


def adjust_saturation(images: Pixels, factors: Factors) -> Pixels:
    """Extrapolate from the gray image for a factor above 1, interpolate below; a single channel is kept."""
    return images if images.shape[1] == 1 else _blend(images, _gray(images), factors)


def adjust_hue(images: Pixels, shifts: Factors) -> Pixels:
    """Rotate the hue by a fraction of the color circle, -0.5..0.5; a single channel is kept.

    HSV by Smith (SIGGRAPH 1978), converted back without cases: each channel is the largest less a fraction of the
    range, and the fraction is a trapezoid of the hue.
    """
    if images.shape[1] == 1:
        return images
    red, green, blue = images.to(torch.float32).unbind(1)
    largest = torch.maximum(red, green).maximum(blue)
    span = largest - torch.minimum(red, green).minimum(blue)
    divisor = span.clamp(min=1)
    sixth = torch.where(
        largest == red,
        (green - blue).div_(divisor),
        torch.where(largest == green, (blue - red).div_(divisor).add_(2), (red - green).div_(divisor).add_(4)),
    )
    sixth.add_(6 * shifts[:, None, None])  # of the circle
    positions = (torch.arange(5, 0, -2, device=images.device)[:, None, None] + sixth[:, None]).remainder_(6)  # b c h w
    fraction = torch.minimum(positions, 4 - positions).clamp_(0, 1)
    # torchvision's way from 0..1 to pixels: times 255.999, truncated.
    return _to_pixels(torch.sub(largest[:, None], fraction.mul_(span[:, None])).mul_(255.999 / 255))


def posterize(images: Pixels, num_bits: int) -> Pixels:
    """Keep only the upper bits of each pixel, 0..8 of them."""
    return images.bitwise_and(256 - 2 ** (8 - num_bits))


def solarize(images: Pixels, threshold: int | float) -> Pixels:
    """Invert pixels from the threshold on."""
    return torch.where(images >= threshold, 255 - images, images)


def autocontrast(images: Pixels) -> Pixels:
    """Stretch each channel to 0..255; a channel of one value is kept."""
    pixels = images.to(torch.float32)
    lowest, highest = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    step = (highest - lowest) * (1 / 255)
    flat = step == 0
    lowest, step = torch.where(flat, 0, lowest), torch.where(flat, 1, step)
    return ((pixels - lowest) / step).clamp_(0, 255).to(torch.uint8)


def equalize(images: Pixels) -> Pixels:
    """Equalize each channel's histogram, by Pillow's table of the cumulated histogram (ImageOps.equalize)."""
    values = images.flatten(2).to(torch.int64)  # b c (h w)
    ones = torch.ones((), dtype=torch.int64, device=images.device).expand_as(values)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device).scatter_add_(2, values, ones)
    num_brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - num_brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255).to(torch.uint8)
    return torch.where(step == 0, images.flatten(2), table.gather(2, values)).view_as(images)


def adjust_sharpness(images: Pixels, factors: Factors) -> Pixels:
    """Extrapolate from the smoothed image for a factor above 1, interpolate below.

    Smoothed is the mean of 3 x 3 pixels, the middle one counted five times. The border is kept, as are images smaller
    than 3 x 3.
    """
    if min(images.shape[2:]) < 3:
        return images
    pixels = images.to(torch.float32)
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    middle = pixels[:, :, 1:-1, 1:-1]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * middle).div_(13).round_()
    middle += (smooth - middle) * (1 - factors)[:, None, None, None]
    return pixels.clamp_(0, 255).to(torch.uint8)


def dispatch(images: Pixels, choices: Int64[Tensor, " b"], operations: Sequence[Operation]) -> Pixels:
    """Apply to each image the operation whose number it has.

    A CPU applies each operation only to the images that chose it, sorted into slices. Other devices apply all
    operations to all images and select: the sizes of slices would need a synchronization.
    """
    if not images.is_cpu:
        result = images
        for number, (function, arguments) in enumerate(operations):
            result = torch.where((choices == number)[:, None, None, None], function(images, *arguments), result)
        return result
    order = choices.argsort(stable=True)
    counts = torch.bincount(choices, minlength=len(operations)).tolist()
    results = [
        function(images.index_select(0, rows), *(argument[rows] for argument in arguments))
        for rows, (function, arguments) in zip(torch.split(order, counts), operations, strict=True)
        if len(rows)
    ]
    return torch.cat(results).index_select(0, order.argsort()) if results else images


def identity(images: Pixels) -> Pixels:
    """Return the images unchanged."""
    return images


class JitterAmounts(NamedTuple):
    """Amounts drawn for each image: factors of three operations and a shift of hue, with the order of the four.

    Attributes:
        order: Numbers of the four operations, shape b 4.
    """

    brightness: Factors
    contrast: Factors
    saturation: Factors
    hue: Factors
    order: Int64[Tensor, "b 4"]


@dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """Equivalent of torchvision.transforms.v2.ColorJitter with factors and order of operations drawn for each image.

    Attributes:
        seed: Seed of the draws.
        brightness: x for factors uniform in max(0, 1 - x)..1 + x; 0 for none.
        contrast: The same.
        saturation: The same.
        hue: x for shifts uniform in -x..x, x up to 0.5 of the circle; 0 for none.
    """

    seed: int
    brightness: int | float
    contrast: int | float
    saturation: int | float
    hue: int | float

    def amounts(self, indices: Int64[Tensor, " b"], epoch: int) -> JitterAmounts:
        """Draw the amounts from (seed, epoch, index of the image)."""
        bits = random_sequences(random_bits(indices, self.seed, epoch, Stream.JITTER), 8)
        numbers = uniform(bits[:, :4])
        brightness, contrast, saturation = (
            max(0.0, 1 - limit) + (1 + limit - max(0.0, 1 - limit)) * numbers[:, column]
            for column, limit in enumerate((self.brightness, self.contrast, self.saturation))
        )
        hue = self.hue * (2 * numbers[:, 3] - 1)
        return JitterAmounts(brightness, contrast, saturation, hue, order=bits[:, 4:].argsort(dim=1))

    def __call__(self, images: Pixels, indices: Int64[Tensor, " b"], epoch: int) -> Pixels:
        """Apply the drawn operations to each image, in its own order."""
        jitter, limits = self.amounts(indices, epoch), (self.brightness, self.contrast, self.saturation, self.hue)
        functions = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        operations: list[Operation] = [
            (function, (amounts,)) if limit > 0 else (identity, ())
            for limit, function, amounts in zip(limits, functions, jitter[:4], strict=True)
        ]
        for numbers in jitter.order.unbind(1):
            images = dispatch(images, numbers, operations)
        return images


def _gray(images: Pixels) -> Float32[Tensor, "b 1 h w"]:
    """Compute whole gray levels. Weights of ITU-R 601 in ten-thousandths: sums below 2**24 are exact in float32."""
    red, green, blue = images.to(torch.float32).unbind(1)
    return (red * 2989).add_(green, alpha=5870).add_(blue, alpha=1140).div_(10000).floor_()[:, None]


def _blend(images: Pixels, others: Float32[Tensor, "b 1 _ _"], factors: Factors) -> Pixels:
    """Compute factor * image + (1 - factor) * other."""
    ratios = factors[:, None, None, None]
    return _to_pixels((images * ratios).add_(others * (1 - ratios)))


def _to_pixels(values: Float32[Tensor, "b c h w"]) -> Pixels:
    return values.clamp_(0, 255).to(torch.uint8)
