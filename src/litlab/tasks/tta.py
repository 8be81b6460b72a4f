"""Test-time augmentation: average the logits over transformed copies of each image."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
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
        margin: Copies are added only to images of which the network is unsure by the original alone: the most probable
            class leads the next one by less than this probability. None to add them to all images.
    """

    flip: bool
    shift: int
    margin: float | None = None

    def logits(self, network: Network, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Average the network's logits over the copies, in float32 whatever the network computes in.

        Raises:
            UserError: The shift is not less than the height and width of the images.
        """
        if self.shift and self.shift >= min(images.shape[2:]):
            size = "x".join(map(str, images.shape[2:]))
            raise UserError(f"task.test_time_shift={self.shift} must be less than the images' size, {size}")
        logits = network(images).float()
        if self.margin is None or not (self.flip or self.shift):
            return self._add_copies(network, images, logits)
        first, second = logits.softmax(dim=1).topk(2, dim=1).values.unbind(1)
        is_unsure = first - second < self.margin
        if torch.compiler.is_exporting():  # an exported program has no shapes that depend on values
            return torch.where(is_unsure[:, None], self._add_copies(network, images, logits), logits)
        rows = is_unsure.nonzero().flatten()
        if not len(rows):
            return logits
        return logits.index_copy(0, rows, self._add_copies(network, images[rows], logits[rows]))

    def _add_copies(self, network: Network, images: Tensor, logits: Tensor) -> Tensor:
        """Average the logits of images with those of their copies."""
        logits = self._add_mirror_image(network, images, logits)
        if not self.shift:
            return logits
        height, width = images.shape[2:]
        padded = F.pad(images, (self.shift,) * 4, mode="reflect")
        for offset in (0, 2 * self.shift):
            shifted = padded[:, :, offset : offset + height, offset : offset + width]
            logits = logits + self._add_mirror_image(network, shifted, network(shifted).float()) / 2
        return logits / 2

    def _add_mirror_image(self, network: Network, images: Tensor, logits: Tensor) -> Tensor:
        return (logits + network(images.flip(3)).float()) / 2 if self.flip else logits
