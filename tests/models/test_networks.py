"""The same tests for every network of conf/model."""

import importlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

CONFIGS = sorted((Path(__file__).parents[2] / "conf/model").glob("*.yaml"))
SMALL: dict[str, dict[str, Any]] = {"resnet18": {"width": 8}, "whitened": {"widths": [8, 16, 16]}}  # quicker
CHOICES: dict[str, dict[str, Any]] = {  # for keys without a value
    "torchvision": {"name": "shufflenet_v2_x0_5"},
    "timm": {"name": "test_efficientnet"},
}
OPTIONAL = {"timm"}  # names of configs that need a package
NUM_PARAMETERS = {  # 3x32x32, ten classes; of every network in conf/model
    "cnn": 62_006, "resnet18": 11_173_962, "timm": 101_766, "torchvision": 352_042, "whitened": 1_972_792,
}  # fmt: skip
FIXED = {  # parameters that are not trained
    "whitened": {"whitening.weight", *(f"stages.{stage}.norms.{n}.weight" for stage in range(3) for n in range(2))}
}

Build = Callable[..., nn.Module]


@pytest.fixture(
    params=[
        pytest.param(path.stem, marks=[pytest.mark.integrations] if path.stem in OPTIONAL else []) for path in CONFIGS
    ]
)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def build(name: str) -> Build:
    (path,) = (path for path in CONFIGS if path.stem == name)
    arguments = yaml.safe_load(path.read_text()) | CHOICES.get(name, {})
    module, _, attribute = arguments.pop("_target_").rpartition(".")
    make = getattr(importlib.import_module(module), attribute)

    def build_network(num_classes: int, image_shape: tuple[int, int, int], *, small: bool = True) -> nn.Module:
        torch.manual_seed(0)
        changes = SMALL.get(name, {}) if small else {}
        return make(num_classes=num_classes, image_shape=image_shape, **(arguments | changes))

    return build_network


def test_number_of_parameters(build: Build, name: str) -> None:
    with torch.device("meta"):
        network = build(10, (3, 32, 32), small=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS[name]


@pytest.mark.parametrize(("num_classes", "image_shape"), [(10, (3, 32, 32)), (2, (3, 40, 56)), (100, (1, 32, 48))])
def test_one_logit_for_each_class(build: Build, name: str, num_classes: int, image_shape: tuple[int, int, int]) -> None:
    if name == "torchvision" and image_shape[0] != 3:
        pytest.skip("torchvision's networks take three channels")
    logits = build(num_classes, image_shape)(torch.randn(2, *image_shape))
    assert logits.shape == (2, num_classes)
    assert logits.isfinite().all()


def test_every_trained_parameter_gets_a_gradient(build: Build, name: str) -> None:
    network = build(5, (3, 32, 32))
    nn.functional.cross_entropy(network(torch.randn(8, 3, 32, 32)), torch.arange(8) % 5).backward()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    without = [name for name, parameter in trained.items() if not parameter.grad.abs().sum() > 0]
    assert {name for name, _ in network.named_parameters()} - trained.keys() == FIXED.get(name, set())
    assert without == []


def test_evaluation_is_deterministic_and_independent_of_the_batch(build: Build) -> None:
    network = build(5, (3, 32, 32)).eval()
    images = torch.randn(6, 3, 32, 32)
    with torch.no_grad():
        logits = network(images)
        assert torch.equal(network(images), logits)
        torch.testing.assert_close(network(images[2:4]), logits[2:4], rtol=1e-4, atol=1e-5)


def test_weights_are_saved_and_loaded_as_plain_tensors(build: Build) -> None:
    network, other = build(5, (3, 32, 32)).eval(), build(5, (3, 32, 32)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.05)
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(images), other(images))
