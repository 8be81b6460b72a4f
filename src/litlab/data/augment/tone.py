"""Posterize, solarize, autocontrast, equalize and sharpness of whole batches, as torchvision does them on uint8.

Whole numbers, or float steps that are not fused: the bits are the same on every device and in every batch.
"""

import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

Pixels = UInt8[Tensor, "b c h w"]


def posterize(images: Pixels, num_bits: int) -> Pixels:
    """Only the upper bits of each pixel, 0..8 of them."""
    return images.bitwise_and(256 - 2 ** (8 - num_bits))


def solarize(images: Pixels, threshold: int | float) -> Pixels:
    """Pixels from the threshold on are inverted."""
    return torch.where(images >= threshold, 255 - images, images)


def autocontrast(images: Pixels) -> Pixels:
    """Each channel is stretched to 0..255; a channel of one value stays."""
    pixels = images.to(torch.float32)
    lowest, highest = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    step = (highest - lowest) * (1 / 255)
    flat = step == 0
    lowest, step = torch.where(flat, 0, lowest), torch.where(flat, 1, step)
    return ((pixels - lowest) / step).clamp_(0, 255).to(torch.uint8)


def equalize(images: Pixels) -> Pixels:
    """Each channel's grey levels spread evenly, by Pillow's table of the cumulated histogram (ImageOps.equalize)."""
    values = images.flatten(2).to(torch.int64)  # b c (h w)
    ones = torch.ones((), dtype=torch.int64, device=images.device).expand_as(values)
    counts = torch.zeros(*values.shape[:2], 256, dtype=torch.int64, device=images.device).scatter_add_(2, values, ones)
    num_brightest = counts.gather(2, values.amax(2, keepdim=True))
    step = (values.shape[2] - num_brightest) // 255
    below = counts.cumsum(2) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255).to(torch.uint8)
    return torch.where(step == 0, images.flatten(2), table.gather(2, values)).view_as(images)


def sharpen(images: Pixels, factors: Float32[Tensor, " b"]) -> Pixels:
    """Away from the smoothed image for a factor above 1, towards it below. The border stays, as do images below 3 x 3.

    Smoothed: the mean of 3 x 3 pixels, the middle one counted five times.
    """
    if min(images.shape[2:]) < 3:
        return images
    pixels = images.to(torch.float32)
    rows = pixels[:, :, :-2] + pixels[:, :, 1:-1] + pixels[:, :, 2:]
    middle = pixels[:, :, 1:-1, 1:-1]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * middle).div_(13).round_()
    middle += (smooth - middle) * (1 - factors)[:, None, None, None]
    return pixels.clamp_(0, 255).to(torch.uint8)
