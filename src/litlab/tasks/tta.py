"""Test-time augmentation: the logits of an image as the mean over some views of it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from litlab.errors import UserError

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Views:
    """What validation, test and predictions show a network of each image.

    flip: its mirror image, left and right, as well; both count alike.
    shift: pixels by which it is moved as well, once up and to the left and once down and to the right, filled up by
        reflection; 0 for neither. The two count a quarter each, the image itself a half (Jordan 2024, arXiv:2404.00498,
        section 3.5, where it is one pixel).
    """

    flip: bool
    shift: int

    def logits(self, network: Network, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Of the network, averaged over the views in float32, whatever it computes in.

        Raises UserError where images would be moved by their own size.
        """
        if not self.shift:
            return self._mirrored(network, images)
        height, width = images.shape[2:]
        if self.shift >= min(height, width):
            raise UserError(f"task.test_time_shift={self.shift} must be less than the images' size, {height}x{width}")
        logits = self._mirrored(network, images)
        padded = F.pad(images, (self.shift,) * 4, mode="reflect")
        for first in (0, 2 * self.shift):
            moved = padded[:, :, first : first + height, first : first + width]
            logits = logits + self._mirrored(network, moved) / 2
        return logits / 2

    def _mirrored(self, network: Network, images: Tensor) -> Tensor:
        logits = network(images).float()
        return (logits + network(images.flip(3)).float()) / 2 if self.flip else logits
