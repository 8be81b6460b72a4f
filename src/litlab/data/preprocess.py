"""Preprocessing of uint8 images for a network; stored with its exports, as a part of its interface."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional


class Preprocess(nn.Module):
    """Resize (bilinear, antialiased, rounded to gray levels as a decoder would) and normalize.

    Args:
        image_size: Height and width of the output in pixels; images of this size are not resampled.
        mean: Per channel, of pixels in 0..1.
        std: Per channel, of pixels in 0..1.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, *, image_size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.image_size = image_size
        means, stds = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
        # Not in the state dict: a checkpoint holds the network alone; the statistics are in dataset.json.
        self.register_buffer("scale", (1 / (255 * stds)).float(), persistent=False)
        self.register_buffer("shift", (-means / stds).float(), persistent=False)

    def forward(self, images: UInt8[Tensor, "b c h_in w_in"]) -> Float[Tensor, "b c h w"]:
        """Return float images, equal to (images / 255 - mean) / std up to rounding."""
        pixels = images.to(self.scale.dtype)
        if tuple(images.shape[-2:]) != self.image_size:
            pixels = functional.interpolate(pixels, self.image_size, mode="bilinear", antialias=True)
            pixels = pixels.round().clamp(0, 255)
        # In place, since `pixels` is a copy; on a CPU half the time of addcmul, which converts once more.
        return pixels.mul_(self.scale).add_(self.shift)
