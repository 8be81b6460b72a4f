"""A small convolutional network that learns fast: whitened input, frozen in the first layer, and little after it."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from litlab.errors import UserError

Activation = Literal["gelu", "relu"]
HEAD_SCALE = 1 / 9  # of the logits, as in Page's and Jordan's networks
WHITENING_EPSILON = 5e-4  # added to the variance of each direction, so that noise is not blown up
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"gelu": nn.GELU, "relu": lambda: nn.ReLU(inplace=True)}


class WhitenedCNN(nn.Module):
    """Whitening, stages of 3x3 convolutions with batch norm, global max pooling, a linear layer without bias.

    The first layer has fixed filters: the principal directions of the training images' patches, each divided by its
    deviation, and their negatives, as ReLU and GELU would lose one sign (Page 2018, "How to train your ResNet";
    Jordan 2024, arXiv:2404.00498, section 3.2). Only its bias learns. `initialize_from` finds the filters.

    Widths [64, 256, 256] with two convolutions each, patches of 2 and stride 1 make the network of Jordan's paper:
    there, each stage begins with a convolution and pools after it. With `pool_first` it pools before, which costs a
    quarter. Filters start as the identity as far as they go (Dirac), batch norms have no scale of their own.

    Args:
        num_classes: number of logits.
        image_shape: channels, height and width of the images in pixels; other heights and widths work as well.
        widths: channels of each stage.
        convolutions: of each stage.
        patch, stride: of the whitening, in pixels.
        whitened: channels after the whitening, twice the number of directions that are kept; None for all of them.
        pool_first: whether stages after the first pool before their convolutions; with False every stage pools after
            its first one.
        residual: whether convolutions that keep the width are added to what they are given.
        activation: gelu, or relu, which is quicker on a CPU.

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
            pool = "before" if pool_first and number else "no" if pool_first else "after"
            stages.append(
                Stage(channels, width, depth, pool=pool, residual=residual, activation=_ACTIVATIONS[activation]())
            )
            channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, num_classes, bias=False)

    def initialize_from(self, images: Float[Tensor, "b c h w"]) -> None:
        """Sets the whitening filters from normalised training images; a few thousand do."""
        weight = self.whitening.weight
        patches = functional.unfold(images, self.whitening.kernel_size, stride=self.whitening.stride)
        rows = patches.transpose(1, 2).flatten(0, 1).double()
        variances, directions = torch.linalg.eigh(rows.T @ rows / len(rows))
        kept = len(weight) // 2
        filters = directions[:, -kept:].T / (variances[-kept:, None] + WHITENING_EPSILON).sqrt()
        with torch.no_grad():
            weight.copy_(torch.cat([filters, -filters]).view_as(weight))

    # The shapes in the comments are those of the paper's network for 3x32x32 images.
    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b num_classes"]:
        features = self.activation(self.whitening(images))  # b 24 31 31
        features = self.stages(features)  # b 64 15 15, b 256 7 7, b 256 3 3
        logits: Tensor = self.head(features.amax(dim=(2, 3))) * HEAD_SCALE  # b 256, b 10
        return logits


class Stage(nn.Module):
    """Convolutions of one width, each followed by batch norm and activation; pooling `before` or `after` the first."""

    def __init__(
        self, in_channels: int, width: int, depth: int, *, pool: str, residual: bool, activation: nn.Module
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(_identity(in_channels if n == 0 else width, width) for n in range(depth))
        self.norms = nn.ModuleList(_norm(width) for _ in range(depth))
        self.activation = activation
        self.pool = pool
        self.residual = residual

    def forward(self, features: Float[Tensor, "b c h w"]) -> Float[Tensor, "b width h2 w2"]:
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            if number == 0 and self.pool == "before":
                features = functional.max_pool2d(features, 2)
            output = convolution(features)
            if number == 0 and self.pool == "after":
                output = functional.max_pool2d(output, 2)
            output = self.activation(norm(output))
            features = features + output if self.residual and output.shape == features.shape else output
        return features


def _identity(in_channels: int, out_channels: int) -> nn.Conv2d:
    convolution = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    nn.init.dirac_(convolution.weight[:in_channels])
    return convolution


def _norm(width: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(width, momentum=0.4)  # short runs: averages have to follow quickly
    norm.weight.requires_grad_(False)
    return norm
