"""Front ends that brighten dark images, and the network behind one."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

LEVELS = 256  # gray levels of an image of 8 bits
EPSILON = 1e-5  # added to the range or deviation of an image, which may be zero


class FrontEndNetwork(nn.Module):
    """Network behind a front end, which works on pixels in 0..1.

    litlab normalizes images on the side of the data. This is undone first. The output of the front end is normalized
    anew, by its mean and deviation over training images, so that every front end hands values of one scale to the
    network.

    Args:
        front_end: From pixels in 0..1, `b c h w`, to images of the same shape.
        network: From images to logits, `b num_classes`.
        mean: Mean per channel by which the images were normalized, of pixels in 0..1.
        std: Standard deviation per channel by which they were normalized.
    """

    def __init__(
        self, *, front_end: nn.Module, network: nn.Module, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.front_end = front_end
        self.network = network
        self.to_pixels = ToPixels(mean, std)
        self.normalize = Normalize(len(mean))

    def initialize_from(self, images: Tensor) -> None:
        """Measure the front end's output for normalized training images, `b c h w`; litlab calls it once."""
        with torch.no_grad():
            enhanced = self.enhance(self.to_pixels(images))
            self.normalize.measure(enhanced)
            if hasattr(self.network, "initialize_from"):
                self.network.initialize_from(self.normalize(enhanced))

    def enhance(self, pixels: Tensor) -> Tensor:
        """Compute the images that `initialize_from` measures."""
        return self.front_end(pixels)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits of normalized images."""
        pixels = self.to_pixels(images)  # b c h w, in 0..1
        enhanced = self.front_end(pixels)  # b c h w
        return self.network(self.normalize(enhanced))  # b num_classes


class ToPixels(nn.Module):
    """Undo litlab's normalization; the result is within 0..1, whatever the rounding."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)  # c 1 1

    def forward(self, images: Tensor) -> Tensor:  # b c h w
        """Compute pixels of normalized images."""
        return (images * self.std + self.mean).clamp(0, 1)


class Normalize(nn.Module):
    """Normalize each channel by a mean and deviation that were measured once, and are part of the checkpoint."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels, 1, 1))
        self.register_buffer("std", torch.ones(num_channels, 1, 1))

    def measure(self, images: Tensor) -> None:
        """Set mean and deviation to those of images, `b c h w`."""
        self.mean.copy_(images.mean(dim=(0, 2, 3))[:, None, None])
        self.std.copy_(images.std(dim=(0, 2, 3))[:, None, None])

    def forward(self, images: Tensor) -> Tensor:  # b c h w
        """Normalize images."""
        return (images - self.mean) / self.std


class Gamma(nn.Module):
    """Raise pixels to the power of 1/gamma."""

    def __init__(self, *, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, pixels: Tensor) -> Tensor:  # b c h w
        """Correct pixels in 0..1."""
        return pixels ** (1 / self.gamma)


class Stretch(nn.Module):
    """Stretch each image so that its darkest value becomes 0 and its brightest, over all channels, nearly 1."""

    def forward(self, pixels: Tensor) -> Tensor:  # b c h w
        """Stretch images of any range."""
        low, high = value_range(pixels)  # b 1 1 1
        return (pixels - low) / (high - low + EPSILON)


class Standardize(nn.Module):
    """Subtract from each image its mean over all channels and pixels, and divide by its standard deviation."""

    def forward(self, pixels: Tensor) -> Tensor:  # b c h w
        """Standardize images of any range."""
        std, mean = torch.std_mean(pixels, dim=(1, 2, 3), keepdim=True)  # b 1 1 1
        return (pixels - mean) / (std + EPSILON)


class Equalize(nn.Module):
    """Equalize the histogram of each channel of each image.

    A level becomes the fraction of pixels at or below it, of those that are not at the lowest level.
    """

    def forward(self, pixels: Tensor) -> Tensor:  # b c h w
        """Equalize pixels in 0..1, rounded to 256 levels."""
        levels = (pixels * (LEVELS - 1)).round().long().flatten(2)  # b c h*w
        counts = histogram(levels)  # b c 256
        lowest = counts.gather(2, levels.amin(dim=2, keepdim=True))  # b c 1: pixels at the lowest level
        above = (counts.cumsum(dim=2) - lowest) / (levels.shape[2] - lowest).clamp(min=1)  # b c 256
        return above.gather(2, levels).view_as(pixels)


def value_range(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lowest and the highest value of each image, `b 1 1 1`."""
    return pixels.amin(dim=(1, 2, 3), keepdim=True), pixels.amax(dim=(1, 2, 3), keepdim=True)


def histogram(bins: Tensor) -> Tensor:
    """Count the numbers from 0 to 255 along the last axis: `... n` of int64 to `... 256` of float32."""
    counts = torch.zeros(*bins.shape[:-1], LEVELS, device=bins.device)
    return counts.scatter_add(-1, bins, torch.ones_like(bins, dtype=counts.dtype))
