"""LSTM that reads an image row by row."""

import torch
from torch import Tensor, nn


class RowLSTM(nn.Module):
    """LSTM over the rows of an image, with a classifier of its last output.

    It starts at a running mean of the states in which it ended before. This state of the network is a buffer, so it is
    in the checkpoints, and equal on all ranks.

    Args:
        hidden: Size of the hidden state.
        layers: Number of LSTM layers.
        momentum: Weight of the newest batch in the running mean of the states; 0 to start at zero.
        image_shape: Channels, height and width.
        num_classes: Number of logits.
    """

    def __init__(
        self, *, hidden: int, layers: int, momentum: float, image_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        super().__init__()
        c, _, w = image_shape
        self.momentum = momentum
        self.lstm = nn.LSTM(c * w, hidden, layers, batch_first=True)
        self.head = nn.Linear(hidden, num_classes)
        self.register_buffer("start", torch.zeros(2, layers, hidden))

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits, `b num_classes`, of images, `b c h w`."""
        rows = images.permute(0, 2, 1, 3).flatten(start_dim=2)  # b h c*w
        hidden, cell = (state[:, None].repeat(1, len(images), 1) for state in self.start)
        outputs, end = self.lstm(rows, (hidden, cell))
        if self.training:
            self.start.lerp_(torch.stack(end).detach().mean(dim=2), self.momentum)
        return self.head(outputs[:, -1])
