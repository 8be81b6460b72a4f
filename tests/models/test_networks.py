"""The suite of `litlab.testing` for every network of conf/model, and what it leaves out."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.runs import compose_config
from torch import nn

from litlab.testing import MakeNetwork, NetworkSuite, describe_images
from litlab.training.build import build_network

SMALL = {"resnet18": ["model.width=8"], "whitened": ["model.widths=[8,16,16]"]}  # quicker
CHOICES = {"torchvision": ["model.name=shufflenet_v2_x0_5"], "timm": ["model.name=test_efficientnet"]}  # no default
OPTIONAL = {"timm"}  # names of configs that need a package
NUM_PARAMETERS = {  # 3x32x32, ten classes; of every network in conf/model
    "cnn": 62_006, "resnet18": 11_173_962, "timm": 101_766, "torchvision": 352_042, "whitened": 1_972_792,
}  # fmt: skip
FIXED = {  # parameters that are not trained
    "whitened": {"whitening.weight", *(f"stages.{stage}.norms.{n}.weight" for stage in range(3) for n in range(2))}
}


class TestNetworks(NetworkSuite):
    project = Path(__file__).parents[2]
    overrides = SMALL | CHOICES

    @classmethod
    def names(cls) -> Sequence[Any]:
        """Mark those that need a package."""
        return [pytest.param(name, marks=[pytest.mark.integrations] * (name in OPTIONAL)) for name in super().names()]

    def test_number_of_parameters(self, name: str) -> None:
        with torch.device("meta"):
            network = _build(10, (3, 32, 32), f"model={name}", *CHOICES.get(name, ()))
        assert sum(parameter.numel() for parameter in network.parameters()) == NUM_PARAMETERS[name]

    @pytest.mark.parametrize(("num_classes", "image_shape"), [(2, (3, 40, 56)), (100, (1, 32, 48))])
    def test_other_shapes(self, name: str, num_classes: int, image_shape: tuple[int, int, int]) -> None:
        if name == "torchvision" and image_shape[0] != 3:
            pytest.skip("torchvision's networks take three channels")
        network = _build(num_classes, image_shape, f"model={name}", *self.overrides.get(name, ()))
        logits = network(torch.randn(2, *image_shape))
        assert logits.shape == (2, num_classes)
        assert logits.isfinite().all()

    def test_parameters_that_are_not_trained(self, name: str, make_network: MakeNetwork) -> None:
        fixed = {key for key, parameter in make_network().named_parameters() if not parameter.requires_grad}
        assert fixed == FIXED.get(name, set())


def _build(num_classes: int, image_shape: tuple[int, int, int], *overrides: str) -> nn.Module:
    return build_network(compose_config(*overrides)["model"], describe_images(num_classes, image_shape))
