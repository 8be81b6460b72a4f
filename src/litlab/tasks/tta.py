"""Test-time augmentation: average the logits over transformed copies of each image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from litlab.errors import UserError

Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class TTA:
    """Test-time augmentation for validation, test and predictions.

    Attributes:
        flip: Add the horizontally mirrored image; both copies have the same weight.
        shift: Add two copies that are shifted by this many pixels, up and left, and down and right, with reflection
            padding; 0 for none. Each shifted copy has the weight 1/4, the original 1/2 (Jordan 2024, arXiv:2404.00498,
            section 3.5, with one pixel).
    """

    flip: bool
    shift: int

    def logits(self, network: Network, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Average the network's logits over the copies, in float32 whatever the network computes in.

        Raises:
            UserError: The shift is not less than the height and width of the images.
        """
        if not self.shift:
            return self._flip_averaged(network, images)
        height, width = images.shape[2:]
        if self.shift >= min(height, width):
            raise UserError(f"task.test_time_shift={self.shift} must be less than the images' size, {height}x{width}")
        logits = self._flip_averaged(network, images)
        padded = F.pad(images, (self.shift,) * 4, mode="reflect")
        for offset in (0, 2 * self.shift):
            shifted = padded[:, :, offset : offset + height, offset : offset + width]
            logits = logits + self._flip_averaged(network, shifted) / 2
        return logits / 2

    def _flip_averaged(self, network: Network, images: Tensor) -> Tensor:
        logits = network(images).float()
        return (logits + network(images.flip(3)).float()) / 2 if self.flip else logits
