"""Small convolutional network for short trainings: fixed whitening filters first, then a few stages."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from litlab.errors import UserError

Activation = Literal["gelu", "relu", "silu"]
HEAD_SCALE = 1 / 9  # of the logits, as in Page's and Jordan's networks
WHITENING_EPSILON = 5e-4  # added to the variance of each direction, so that noise is not amplified
_CHUNK = 100  # images
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "gelu": nn.GELU,
    "relu": lambda: nn.ReLU(inplace=True),
    "silu": nn.SiLU,
}


class WhitenedCNN(nn.Module):
    """Whitening, stages of 3x3 convolutions with batch norm, global max pooling, a linear layer without bias.

    The first layer has fixed filters: the principal directions of the training images' patches, each divided by its
    standard deviation, and their negatives, as the activations discard one sign (Page 2018, "How to train your ResNet";
    Jordan 2024, arXiv:2404.00498, section 3.2). Only its bias is trained. `initialize_from` computes the filters.

    Widths [64, 256, 256] with two convolutions each, patches of 2 and stride 1 make the network of Jordan's paper:
    there, each stage begins with a convolution and pools after it. With `pool_first` it pools before, at a quarter of
    the cost. Convolutions are initialized as the identity (Dirac), batch norms have a fixed scale of 1.

    Args:
        num_classes: Number of logits.
        image_shape: Channels, height and width of the images in pixels; other heights and widths work as well.
        widths: Channels of each stage.
        convolutions: Number of convolutions of each stage.
        patch: Height and width of a whitening filter in pixels.
        stride: Stride of the whitening in pixels.
        whitened: Channels after the whitening, twice the number of directions that are kept; None for all of them.
        pool_first: Pool before the convolutions in stages after the first, and not at all in the first; otherwise
            every stage pools after its first convolution.
        residual: Add the input of a convolution that keeps the width to its output.
        activation: `gelu`, `silu`, or `relu`, which is the fastest on a CPU.

    Raises:
        UserError: `convolutions` doesn't fit `widths`, or more directions are kept than patches have pixels.
    """

    def __init__(
        self,
        *,
        num_classes: int,
        image_shape: tuple[int, int, int],
        widths: Sequence[int],
        convolutions: Sequence[int],
        patch: int,
        stride: int,
        whitened: int | None,
        pool_first: bool,
        residual: bool,
        activation: Activation,
    ) -> None:
        super().__init__()
        if len(convolutions) != len(widths):
            raise UserError(
                f"model.convolutions={list(convolutions)} must have one number for each of model.widths={list(widths)}"
            )
        num_pixels = image_shape[0] * patch**2
        channels = 2 * num_pixels if whitened is None else whitened
        if channels % 2 or not 0 < channels <= 2 * num_pixels:
            raise UserError(
                f"model.whitened={whitened} must be even and at most {2 * num_pixels}, twice the pixels of a patch"
            )
        self.whitening = nn.Conv2d(image_shape[0], channels, patch, stride=stride)
        self.whitening.weight.requires_grad_(False)
        assert self.whitening.bias is not None
        nn.init.zeros_(self.whitening.bias)
        self.activation = _ACTIVATIONS[activation]()
        stages = []
        for number, (width, depth) in enumerate(zip(widths, convolutions, strict=True)):
            pool = "before" if pool_first and number else "none" if pool_first else "after"
            layer = _ACTIVATIONS[activation]()
            stages.append(Stage(channels, width, depth, pool=pool, residual=residual, activation=layer))
            channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes, bias=False)

    def initialize_from(self, images: Float[Tensor, "b c h w"]) -> None:
        """Set the whitening filters from normalized training images; a few thousand are enough."""
        weight = self.whitening.weight
        moments, num_patches = torch.zeros((), dtype=torch.float64), 0
        for chunk in torch.split(images, _CHUNK):  # the patches of all images could take 16 times their memory
            patches = functional.unfold(chunk, self.whitening.kernel_size, stride=self.whitening.stride)  # b n l
            moments = moments + (patches @ patches.mT).sum(dim=0, dtype=torch.float64)
            num_patches += len(patches) * patches.shape[2]
        variances, directions = torch.linalg.eigh(moments / num_patches)
        num_kept = len(weight) // 2
        filters = directions[:, -num_kept:].T / (variances[-num_kept:, None] + WHITENING_EPSILON).sqrt()
        with torch.no_grad():
            weight.copy_(torch.cat([filters, -filters]).view_as(weight))

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        """Compute logits; the shapes in the comments are those of the paper's network for 3x32x32 images."""
        features = self.activation(self.whitening(images))  # b 24 31 31
        features = self.stages(features)  # b 64 15 15, b 256 7 7, b 256 3 3
        logits: Tensor = self.head(features.amax(dim=(2, 3))) * HEAD_SCALE  # b 256, b 10
        return logits


class Stage(nn.Module):
    """Convolutions of one width, each followed by batch norm and activation.

    Args:
        in_channels: Channels of the input.
        width: Channels of the output.
        depth: Number of convolutions.
        pool: 2x2 max pooling `before` or `after` the first convolution, or `none`.
        residual: Add the input of a convolution that keeps the shape to its output.
        activation: Activation after each batch norm.
    """

    def __init__(
        self, in_channels: int, width: int, depth: int, *, pool: str, residual: bool, activation: nn.Module
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_convolution(in_channels if n == 0 else width, width) for n in range(depth))
        self.norms = nn.ModuleList(_batch_norm(width) for _ in range(depth))
        self.activation = activation
        self.pool = pool
        self.residual = residual

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        """Compute the features of the next stage."""
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if number == 0 and self.pool == "before":
                features = functional.max_pool2d(features, 2)
            output = convolution(features)
            if number == 0 and self.pool == "after":
                output = functional.max_pool2d(output, 2)
            output = self.activation(norm(output))
            features = features + output if self.residual and output.shape == features.shape else output
        return features


def _convolution(in_channels: int, out_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[:in_channels])
    return convolution


def _batch_norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=0.4)  # short trainings: the running averages have to follow quickly
    norm.weight.requires_grad_(False)
    return norm
