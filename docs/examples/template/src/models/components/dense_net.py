"""Fully connected network for small images."""

from torch import Tensor, nn


class DenseNet(nn.Module):
    """Linear layers with batch norm.

    Args:
        input_size: Pixels of an image.
        hidden: Widths of the hidden layers.
        output_size: Number of classes.
    """

    def __init__(self, input_size: int = 784, hidden: tuple[int, ...] = (64, 128), output_size: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for width in hidden:
            layers += [nn.Linear(input_size, width), nn.BatchNorm1d(width), nn.ReLU()]
            input_size = width
        self.model = nn.Sequential(*layers, nn.Linear(input_size, output_size))

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits of images, b c h w."""
        return self.model(x)
