"""Whitened network: its first layer, shapes, initialization and errors."""

from typing import Any

import pytest
import torch
from support.runs import compose_config
from torch import Tensor, nn
from torch.nn import functional

from litlab.data.module import ImageDataModule
from litlab.errors import UserError
from litlab.models.whitened import WhitenedCNN
from litlab.training.build import assemble

PAPER: dict[str, Any] = {
    "num_classes": 10, "image_shape": (3, 32, 32), "widths": [64, 256, 256], "convolutions": [2, 2, 2],
    "patch": 2, "stride": 1, "whitened": None, "pool_first": False, "residual": False, "activation": "gelu",
}  # fmt: skip

FEW = ("data=shapes", "data.num_train=200", "data.num_test=50", "data.val_size=50")


def smooth_images(num_images: int) -> Tensor:
    """Make images whose neighboring pixels and channels are alike, as in photographs."""
    noise = torch.randn(num_images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    return functional.avg_pool2d(noise, 3, stride=1, padding=1) + noise.mean(dim=1, keepdim=True)


@pytest.mark.parametrize(("patch", "stride", "whitened"), [(2, 1, None), (3, 2, None), (4, 2, 32)])
def test_whitened_channels_are_uncorrelated_with_variance_near_one(
    patch: int, stride: int, whitened: int | None
) -> None:
    network = WhitenedCNN(**PAPER | {"patch": patch, "stride": stride, "whitened": whitened})
    images = smooth_images(200)
    network.initialize_from(images)
    with torch.no_grad():
        outputs = network.whitening(images)
    half = outputs.shape[1] // 2
    assert half == (whitened or 2 * 3 * patch**2) // 2
    torch.testing.assert_close(outputs[:, half:], -outputs[:, :half])
    rows = outputs[:, :half].transpose(0, 1).flatten(1)
    covariance = rows @ rows.T / rows.shape[1]
    torch.testing.assert_close(covariance, covariance.diagonal().diag(), atol=1e-3, rtol=0)
    assert 0.8 < covariance.diagonal().min() <= covariance.diagonal().max() < 1.001  # less where epsilon counts


def test_directions_with_the_largest_variance_are_kept() -> None:
    images = smooth_images(200)
    all_of_them = WhitenedCNN(**PAPER | {"patch": 4, "stride": 2})
    few = WhitenedCNN(**PAPER | {"patch": 4, "stride": 2, "whitened": 8})
    for network in (all_of_them, few):
        network.initialize_from(images)
    norms = few.whitening.weight.flatten(1).norm(dim=1)[:4]  # 1 / deviation of the direction
    others = all_of_them.whitening.weight.flatten(1).norm(dim=1)[:44]
    assert norms.max() < others.min()


def test_is_the_network_of_the_paper() -> None:
    network = WhitenedCNN(**PAPER).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    state, images = network.state_dict(), torch.randn(2, 3, 32, 32)
    features = functional.gelu(functional.conv2d(images, state["whitening.weight"], state["whitening.bias"]))
    assert features.shape == (2, 24, 31, 31)
    for stage in range(3):
        for number in range(2):
            features = functional.conv2d(features, state[f"stages.{stage}.convolutions.{number}.weight"], padding=1)
            features = functional.max_pool2d(features, 2) if number == 0 else features
            scale, shift = (
                state[f"stages.{stage}.norms.{number}.{part}"][:, None, None] for part in ("weight", "bias")
            )
            features = functional.gelu(features / (1 + 1e-5) ** 0.5 * scale + shift)
    logits = features.amax(dim=(2, 3)) @ state["head.weight"].T / 9
    assert features.shape == (2, 256, 3, 3)
    torch.testing.assert_close(network(images), logits, rtol=1e-4, atol=1e-5)


def test_convolutions_are_initialized_as_the_identity() -> None:
    network = WhitenedCNN(**PAPER | {"widths": [32, 32, 16]})
    features = torch.randn(2, 24, 6, 6)
    first = network.stages[0].convolutions[0]  # type: ignore[index]
    assert torch.equal(first(features)[:, :24], features)  # type: ignore[operator]
    narrowing = network.stages[2].convolutions[0]  # type: ignore[index]
    wide = torch.randn(2, 32, 6, 6)
    assert torch.equal(narrowing(wide), wide[:, :16])  # type: ignore[operator]


def test_pooling_first_gives_the_same_shapes() -> None:
    settings = PAPER | {"patch": 4, "stride": 2, "whitened": 32, "widths": [32, 64, 128], "convolutions": [1, 2, 2]}
    first = WhitenedCNN(**settings | {"pool_first": True, "residual": True, "activation": "relu"})
    shapes: list[tuple[int, ...]] = []
    for stage in first.stages:
        stage.register_forward_hook(lambda module, given, output: shapes.append(tuple(output.shape)))
    first(torch.randn(2, 3, 32, 32))
    assert shapes == [(2, 32, 15, 15), (2, 64, 7, 7), (2, 128, 3, 3)]


def test_filters_come_from_training_images_unless_a_checkpoint_has_them() -> None:
    config = compose_config(*FEW, "trainer=cpu", "model=whitened", "model.widths=[8,8,8]")
    shown, other = assemble(config, rank=0), assemble(config, rank=0, from_checkpoint=True)
    assert isinstance(shown.network, WhitenedCNN)
    assert isinstance(other.network, WhitenedCNN)
    assert isinstance(shown.data, ImageDataModule)
    assert not torch.allclose(shown.network.whitening.weight, other.network.whitening.weight, atol=1e-2)
    other.network.initialize_from(shown.data.example_images(5000))
    for name, value in shown.network.state_dict().items():
        assert torch.equal(other.network.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"convolutions": [2, 2]}, r"model.convolutions=\[2, 2\] must have one number for each of model.widths"),
        ({"whitened": 26}, "model.whitened=26 must be even and at most 24, twice the pixels of a patch"),
        ({"whitened": 3}, "model.whitened=3 must be even"),
    ],
)
def test_inconsistent_arguments_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WhitenedCNN(**PAPER | change)


@pytest.mark.parametrize(("activation", "value"), [("gelu", 0.8413), ("relu", 1.0), ("silu", 0.7311)])
def test_the_activation_is_used_in_all_layers(activation: str, value: float) -> None:
    network = WhitenedCNN(**PAPER | {"widths": [4], "convolutions": [2], "activation": activation})
    seen: list[float] = []
    for module in (network.activation, network.stages[0].activation):
        assert isinstance(module, nn.Module)
        module.register_forward_hook(lambda *arguments: seen.append(arguments[2].flatten()[0].item()))
        module(torch.ones(1))
    assert seen == pytest.approx([value, value], abs=1e-4)
    assert len(seen) == 2
    network(torch.randn(2, 3, 32, 32)).sum().backward()  # type: ignore[no-untyped-call]
    assert len(seen) == 5
