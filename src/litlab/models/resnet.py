"""ResNet-18 for small images."""

from jaxtyping import Float
from torch import Tensor, nn


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016, arXiv:1512.03385) with the stem that is usual for CIFAR.

    Its 18 layers are the stem, four stages of two blocks with two convolutions each, and the head.
    The stem is one 3x3 convolution of stride 1 without max pooling, so that 32x32 images reach the last stage as 4x4.
    Convolutions are initialized as in He et al. 2015 (normal, fan out). 11,173,962 parameters at width 64 for three
    channels and ten classes.

    Args:
        num_classes: Number of logits.
        image_shape: Channels, height and width of the images in pixels; any height and width.
        width: Channels of the first stage; each later stage has twice as many.
    """

    def __init__(self, *, num_classes: int, image_shape: tuple[int, int, int], width: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(image_shape[0], width, stride=1), nn.BatchNorm2d(width), nn.ReLU())
        self.stages = nn.Sequential(
            stage(width, width, stride=1),
            stage(width, 2 * width, stride=2),
            stage(2 * width, 4 * width, stride=2),
            stage(4 * width, 8 * width, stride=2),
        )
        self.head = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Compute logits; the shapes in the comments are for 3x32x32 images at width 64."""
        features = self.stem(images)  # b 64 32 32
        features = self.stages(features)  # b 512 4 4
        logits: Tensor = self.head(features.mean(dim=(2, 3)))  # b 512, b 10
        return logits


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution if the shape changes.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(in_channels, out_channels, stride=stride),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
            convolution(out_channels, out_channels, stride=1),
            nn.BatchNorm2d(out_channels),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, features: Float[Tensor, "b in_channels h w"]) -> Float[Tensor, "b out_channels h2 w2"]:
        """Add the residual to the shortcut and apply ReLU."""
        output: Tensor = nn.functional.relu(self.residual(features) + self.shortcut(features))
        return output


def stage(in_channels: int, out_channels: int, *, stride: int) -> nn.Sequential:
    """Make the two blocks of one resolution; the first has the stride."""
    return nn.Sequential(Block(in_channels, out_channels, stride=stride), Block(out_channels, out_channels, stride=1))


def convolution(in_channels: int, out_channels: int, *, stride: int) -> nn.Conv2d:
    """Make a padded 3x3 convolution; without bias, as a batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
