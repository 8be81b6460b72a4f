"""Networks of torchvision's registry and their pretrained weights."""

import sys
import urllib.request
from pathlib import Path

import pytest
import torch
import torchvision.models
from torch import Tensor, nn

from litlab.errors import UserError
from litlab.models.torchvision import build

FILE = "shufflenetv2_x0.5-f707e7126e.pth"  # as torchvision calls the official weights


def smallest_of_each_family() -> list[str]:
    """Return the smallest network of each family; the larger ones have the same code and only take longer."""
    smallest: dict[str, str] = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        family = torchvision.models.get_model_builder(name).__module__
        smallest[family] = min(smallest.get(family, name), name, key=num_parameters)
    return sorted(smallest.values())


def num_parameters(name: str) -> int:
    return int(torchvision.models.get_model_weights(name).DEFAULT.meta["num_params"])


@pytest.fixture
def weights_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty cache for weights, on a machine without network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "_opener", None)  # urllib keeps the proxies of the first call
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    folder = tmp_path / "hub/checkpoints"
    folder.mkdir(parents=True)
    return folder


def official_state() -> dict[str, Tensor]:
    torch.manual_seed(3)
    return torchvision.models.shufflenet_v2_x0_5(weights=None).state_dict()


@pytest.mark.integrations
@pytest.mark.parametrize("name", smallest_of_each_family())
def test_every_family_of_the_registry_is_built_with_ten_classes(name: str) -> None:
    with torch.device("cpu" if name.startswith("regnet") else "meta"):  # RegNet reads numbers out of tensors
        network = build(name=name, pretrained=False, num_classes=10, image_shape=(3, 224, 224))
    *_, head = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert head.weight.shape[0] == 10
    assert network.training


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_networks_with_auxiliary_heads_return_plain_logits_in_training(name: str) -> None:
    with torch.device("meta"):
        network = build(name=name, pretrained=False, num_classes=10, image_shape=(3, 224, 224))
        assert network(torch.zeros(2, 3, 224, 224)).shape == (2, 10)


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match=r"model\.name=resnet19: .*nearest: resnet18"):
        build(name="resnet19", pretrained=False, num_classes=10, image_shape=(3, 32, 32))


@pytest.mark.parametrize(("name", "image_shape"), [("alexnet", (3, 32, 32)), ("shufflenet_v2_x0_5", (1, 64, 64))])
def test_unsupported_images_are_refused(name: str, image_shape: tuple[int, int, int]) -> None:
    channels, height, width = image_shape
    with pytest.raises(UserError, match=f"does not take images of {channels} channels and {height}x{width} pixels"):
        build(name=name, pretrained=False, num_classes=10, image_shape=image_shape)


def test_pretrained_weights_are_loaded_except_the_head(weights_folder: Path) -> None:
    state = official_state()
    torch.save(state, weights_folder / FILE)
    network = build(name="shufflenet_v2_x0_5", pretrained=True, num_classes=10, image_shape=(3, 32, 32))
    loaded = network.state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state if not key.startswith("fc."))
    assert loaded["fc.weight"].shape == (10, 1024)
    thousand = build(name="shufflenet_v2_x0_5", pretrained=True, num_classes=1000, image_shape=(3, 32, 32))
    assert torch.equal(thousand.state_dict()["fc.weight"], state["fc.weight"])


def test_weights_of_another_network_are_refused(weights_folder: Path) -> None:
    state = official_state()
    state["extra"] = state.pop("conv5.0.weight")
    torch.save(state, weights_folder / FILE)
    with pytest.raises(UserError, match=r"does not hold the weights of shufflenet_v2_x0_5: delete the file"):
        build(name="shufflenet_v2_x0_5", pretrained=True, num_classes=10, image_shape=(3, 32, 32))


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return sys.intern, ("executed",)


@pytest.mark.parametrize("content", ["hostile", "truncated"])
def test_invalid_weights_file_is_refused(weights_folder: Path, content: str) -> None:
    torch.save({"weight": Hostile()}, weights_folder / FILE)
    if content == "truncated":
        (weights_folder / FILE).write_bytes((weights_folder / FILE).read_bytes()[:100])
    with pytest.raises(
        UserError, match=r"model\.pretrained=true: cannot load the weights of .*delete .*downloaded again"
    ):
        build(name="shufflenet_v2_x0_5", pretrained=True, num_classes=10, image_shape=(3, 32, 32))


def test_offline_error_names_the_file_to_download(weights_folder: Path) -> None:
    with pytest.raises(UserError) as raised:
        build(name="shufflenet_v2_x0_5", pretrained=True, num_classes=10, image_shape=(3, 32, 32))
    url = torchvision.models.ShuffleNet_V2_X0_5_Weights.DEFAULT.url
    assert url in str(raised.value)
    assert f"download it elsewhere and save it as {weights_folder / FILE}" in str(raised.value)
    assert list(weights_folder.iterdir()) == []
