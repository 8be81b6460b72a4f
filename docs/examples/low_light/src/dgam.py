"""Dual gamma adaptive modulation (DGAM): Ha, Bae, Bae and Lee, ACCV 2024 (ELLAR)."""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from front_ends import EPSILON, LEVELS, FrontEndNetwork, histogram, value_range
from torch import Tensor, nn
from torch.nn import functional

from litlab.errors import UserError

GateKind = Literal["soft", "hard"]
NUM_STATISTICS = 3


class DGAM(FrontEndNetwork):
    """Network between two mixtures of experts with one gate.

    From statistics of an image, the gate computes a weight for each expert. The first experts are gamma corrections,
    whose weighted sum is the input of the network. The second ones are linear layers, which replace the network's last
    one and start as copies of it.

    A hard gate is that of the published code. The corrections are weighed by the softmax of the weights over a
    temperature of 1e-6, which is one-hot, and the linear layer is that of the largest weight. The gradient of the gate
    is then exactly zero, unless two weights of an image are equal to about four digits, where it is huge.

    A gate that is frozen in training is left out: an expert is drawn for each image, all with the same probability.

    Args:
        network: From images to logits; its last linear layer is replaced.
        front_end: From pixels in 0..1, `b c h w`, to the images that gate and corrections get.
        gammas: Gamma of each correction.
        gate: `soft` or `hard`.
        temperature: Temperature of the softmax that makes weights one-hot; not used by a soft gate.
        num_classes: Number of logits.
        mean: Mean per channel by which the images were normalized, of pixels in 0..1.
        std: Standard deviation per channel by which they were normalized.

    Raises:
        UserError: The network does not end in a linear layer.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        front_end: nn.Module,
        gammas: Sequence[float],
        gate: GateKind,
        temperature: float,
        num_classes: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(front_end=front_end, network=network, mean=mean, std=std)
        self.gammas, self.kind, self.temperature = tuple(gammas), gate, temperature
        head = take_head(network, num_classes)
        self.heads = nn.ModuleList(copy.deepcopy(head) for _ in gammas)
        self.gate = build_gate(len(gammas))

    def enhance(self, pixels: Tensor) -> Tensor:
        """Compute the mean of all corrections, by which the input of the network is normalized."""
        pixels = self.front_end(pixels)
        equal = pixels.new_full((len(pixels), len(self.gammas)), 1 / len(self.gammas))  # b k
        return mix_gammas(pixels, self.gammas, equal)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits of normalized images."""
        pixels = self.front_end(self.to_pixels(images))  # b c h w
        image_weights, head_weights = self.weigh(pixels)  # b k
        enhanced = mix_gammas(pixels, self.gammas, image_weights)  # b c h w
        features = self.network(self.normalize(enhanced))  # b f
        logits = torch.stack([head(features) for head in self.heads], dim=1)  # b k num_classes
        return mix(head_weights, logits)  # b num_classes

    def weigh(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute the weights of the corrections and of the heads, `b k`, whose sum over `k` is 1."""
        if self.training and not self.gate[-1].weight.requires_grad:
            drawn = torch.randint(len(self.gammas), pixels.shape[:1], device=pixels.device)  # b
            weights = one_hot(drawn, len(self.gammas))
            return weights, weights
        weights = self.gate(image_statistics(pixels)).softmax(dim=1)  # b k
        if self.kind == "soft":
            return weights, weights
        return (weights / self.temperature).softmax(dim=1), one_hot(weights.argmax(dim=1), len(self.gammas))


def mix_gammas(pixels: Tensor, gammas: Sequence[float], weights: Tensor) -> Tensor:
    """Sum the gamma corrections of images, `b c h w`, with weights, `b k`, whose sum is 1.

    A correction works on an image scaled to 0..1, and gives it its range of values back. That is the same for all
    corrections of an image, so it is done once, after the sum.
    """
    low, high = value_range(pixels)  # b 1 1 1
    scaled = (pixels - low) / (high - low + EPSILON)  # b c h w, in 0..1
    corrections = torch.stack([scaled ** (1 / gamma) for gamma in gammas], dim=1)  # b k c h w
    return mix(weights, corrections) * (high - low) + low


def image_statistics(pixels: Tensor) -> Tensor:
    """Compute mean, standard deviation and entropy in nats of the values of each image, `b 3`, without gradient."""
    values = pixels.detach().flatten(1)  # b n
    low, high = values.amin(dim=1, keepdim=True), values.amax(dim=1, keepdim=True)  # b 1
    scaled = (values - low) / (high - low + 1e-10)  # b n, in 0..1
    bins = (scaled * LEVELS).long().clamp(max=LEVELS - 1)  # b n
    fractions = histogram(bins) / values.shape[1]  # b 256
    entropy = -torch.xlogy(fractions, fractions).sum(dim=1)
    return torch.stack([values.mean(dim=1), values.std(dim=1), entropy], dim=1)


def mix(weights: Tensor, experts: Tensor) -> Tensor:
    """Sum the outputs of experts, `b k ...`, with their weights, `b k`."""
    return torch.einsum("bk,bk...->b...", weights, experts)


def one_hot(indices: Tensor, num_experts: int) -> Tensor:
    """Return rows of zeros with a one at each index: `b` of int64 to `b num_experts` of float32."""
    return functional.one_hot(indices, num_experts).float()


def build_gate(num_experts: int) -> nn.Sequential:
    """Build the published gate: statistics, `b 3`, to logits, `b num_experts`."""
    return nn.Sequential(
        *(nn.Linear(NUM_STATISTICS, 128), nn.BatchNorm1d(128), nn.LeakyReLU(), nn.Dropout(0.1)),
        *(nn.Linear(128, 256), nn.BatchNorm1d(256), nn.LeakyReLU(), nn.Dropout(0.1)),
        nn.Linear(256, num_experts),
    )


def take_head(network: nn.Module, num_classes: int) -> nn.Linear:
    """Replace the last linear layer of a network by the identity, and return it.

    Raises:
        UserError: There is none, or it has another number of outputs than there are classes.
    """
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    name, head = layers[-1] if layers else ("", None)
    if head is None or head.out_features != num_classes:
        raise UserError(
            f"model.network: {type(network).__name__} does not end in a linear layer with {num_classes} outputs, which "
            "DGAM replaces by one for each gamma; choose another network, such as model@model.network=cnn"
        )
    network.set_submodule(name, nn.Identity())
    return head
