"""Tutorial network for small images: unpadded convolutions with pooling, then fully connected layers."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from litlab.errors import UserError

KERNEL_SIZE = 5


class CNN(nn.Module):
    """Unpadded 5x5 convolutions, each followed by ReLU and 2x2 max pooling, then fully connected layers.

    With widths (6, 16) and hidden (120, 84) it is the network of PyTorch's CIFAR-10 tutorial, after LeNet-5
    (LeCun et al. 1998): 62,006 parameters for 3x32x32 images and ten classes, PyTorch's default initialization.

    Args:
        num_classes: Number of logits.
        image_shape: Channels, height and width of the images in pixels.
        widths: Output channels of each convolution.
        hidden: Output features of each fully connected layer before the last.

    Raises:
        UserError: The images are too small for this many convolutions.
    """

    def __init__(
        self, *, num_classes: int, image_shape: tuple[int, int, int], widths: Sequence[int], hidden: Sequence[int]
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        _check_image_size(height, width, num_convolutions=len(widths))
        layers: list[nn.Module] = []
        for out_channels in widths:
            layers += [nn.Conv2d(channels, out_channels, KERNEL_SIZE), nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = out_channels, _pooled_size(height), _pooled_size(width)
        self.features = nn.Sequential(*layers)
        layers = []
        num_features = channels * height * width
        for out_features in hidden:
            layers += [nn.Linear(num_features, out_features), nn.ReLU()]
            num_features = out_features
        self.classifier = nn.Sequential(*layers, nn.Linear(num_features, num_classes))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:  # b 3 32 32
        """Compute logits; the shapes in the comments are those of the tutorial's network and images."""
        features = self.features(images)  # b 6 14 14 after the first pooling, b 16 5 5 after the second
        logits: Tensor = self.classifier(features.flatten(start_dim=1))  # b 400, b 120, b 84, b 10
        return logits


def _pooled_size(size: int) -> int:
    """Compute the height or width after one convolution and pooling."""
    return (size - KERNEL_SIZE + 1) // 2


def _check_image_size(height: int, width: int, *, num_convolutions: int) -> None:
    smallest = 1
    for _ in range(num_convolutions):
        smallest = 2 * smallest + KERNEL_SIZE - 1
    if min(height, width) < smallest:
        raise UserError(
            f"model=cnn with {num_convolutions} convolutions (model.widths) needs images of at least "
            f"{smallest}x{smallest} pixels, but these are {height}x{width}: use larger images (data.image_size, if "
            "the data set has it) or fewer entries in model.widths"
        )
