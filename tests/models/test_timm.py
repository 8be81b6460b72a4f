"""Networks of timm, by `model=timm` and by `_target_`."""

from pathlib import Path

import pytest
import torch
from support.runs import TINY, Command, train_here

import litlab
from litlab.errors import UserError
from litlab.models.timm import build

pytestmark = pytest.mark.integrations
SMALL = tuple(override for override in TINY if not override.startswith("model"))


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet"])
@pytest.mark.parametrize("image_shape", [(3, 32, 32), (1, 64, 48)])
def test_networks_take_images_of_any_size_and_number_of_channels(name: str, image_shape: tuple[int, int, int]) -> None:
    network = build(name=name, pretrained=False, num_classes=7, image_shape=image_shape)
    assert network.training
    assert network(torch.randn(2, *image_shape)).shape == (2, 7)


def test_unknown_networks_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"^model.name=resnet181: timm \S+ has no network .* nearest: .*resnet18"):
        build(name="resnet181", pretrained=False, num_classes=7, image_shape=(3, 32, 32))


def test_an_unknown_tag_of_weights_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        UserError, match=r"^model.name=resnet18.foo: timm \S+ has no such weights; known: resnet18.a1_in1k, "
    ):
        build(name="resnet18.foo", pretrained=False, num_classes=7, image_shape=(3, 32, 32))


def test_images_that_are_too_small_are_refused() -> None:
    with pytest.raises(UserError, match=r"^model.name=test_vit"):
        build(name="test_vit", pretrained=False, num_classes=7, image_shape=(3, 8, 8))


def test_weights_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=r"^model.name=test_resnet: timm can't build it .*: use model.pretrained=false"):
        build(name="test_resnet", pretrained=True, num_classes=7, image_shape=(3, 32, 32))


def test_a_run_is_trained_and_loaded(tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *SMALL, "model=timm", "model.name=test_resnet", "trainer.max_epochs=1")
    assert litlab.load(run.path)(torch.zeros(3, 32, 32, dtype=torch.uint8)).shape == (1, 10)


def test_create_model_gets_the_number_of_classes(tmp_path: Path, litlab: Command) -> None:
    overrides = ("~model", "+model._target_=timm.create_model", "+model.model_name=test_resnet", "name=timm")
    done = litlab("train", *SMALL, *overrides, "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr) == (0, "")
