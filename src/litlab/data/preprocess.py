"""Preprocessing of uint8 images for a network; stored with its exports, as a part of its interface."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from litlab.data.resize import Resize, resize_boxes


class Preprocess(nn.Module):
    """Resize (bilinear, antialiased, rounded to gray levels as a decoder would) and normalize.

    Args:
        image_size: Height and width of the output in pixels; images of this size are not resampled.
        mean: Per channel, of pixels in 0..1.
        std: Per channel, of pixels in 0..1.
        resize: See `resize_boxes`; padding is black.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *,
        image_size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        resize: Resize = "squash",
    ) -> None:
        super().__init__()
        self.image_size = image_size
        self.method: Resize = resize
        means, stds = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std))
        # Not in the state dict: a checkpoint holds the network alone; the statistics are in dataset.json.
        self.register_buffer("scale", (1 / (255 * stds)).float(), persistent=False)
        self.register_buffer("shift", (-means / stds).float(), persistent=False)

    def forward(self, images: UInt8[Tensor, "b c h_in w_in"]) -> Float[Tensor, "b c h w"]:
        """Resize and normalize."""
        return self.normalize(self.resize(images))

    def resize(self, images: UInt8[Tensor, "b c h_in w_in"]) -> UInt8[Tensor, "b c h w"]:
        """Resize images that have another size."""
        size = images.shape[-2], images.shape[-1]
        if size == self.image_size:
            return images
        source, placed = resize_boxes(size, self.image_size, self.method)
        rows, columns = slice(source.top, source.top + source.height), slice(source.left, source.left + source.width)
        pixels = images[..., rows, columns].to(self.scale.dtype)
        if pixels.shape[-2:] != (placed.height, placed.width):
            pixels = functional.interpolate(pixels, (placed.height, placed.width), mode="bilinear", antialias=True)
        right, bottom = (
            self.image_size[1] - placed.left - placed.width,
            self.image_size[0] - placed.top - placed.height,
        )
        return functional.pad(pixels.round().clamp(0, 255).to(torch.uint8), (placed.left, right, placed.top, bottom))

    def normalize(self, images: UInt8[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return float images of the same size, equal to (images / 255 - mean) / std up to rounding."""
        pixels = images.to(self.scale.dtype)
        # In place, since `pixels` is a copy; on a CPU half the time of addcmul, which converts once more.
        return pixels.mul_(self.scale).add_(self.shift)
