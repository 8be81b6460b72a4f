"""Image classifiers of torchvision's registry, with its pretrained weights."""

import difflib
import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torchvision import models  # type: ignore[import-untyped]
from torchvision.models import WeightsEnum  # type: ignore[import-untyped]

from litlab.errors import UserError

AUXILIARY_HEADS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def build(*, name: str, pretrained: bool, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Build a network that returns logits `b num_classes`, also in training (no auxiliary heads).

    Args:
        name: Name as in `torchvision.models.list_models(module=torchvision.models)`.
        pretrained: Start from torchvision's default weights, trained on ImageNet; the head is initialized again unless
            num_classes is 1000. They expect ImageNet's normalization of the images (`data.mean`, `data.std`).
        num_classes: Number of logits.
        image_shape: Channels, height and width of the images in pixels; most networks take three channels.

    Raises:
        UserError: There is no such network, it does not take these images, or its weights cannot be loaded.
    """
    network = build_untrained(name=name, pretrained=pretrained, num_classes=num_classes, image_shape=image_shape)
    if pretrained:
        _load_pretrained(network, name)
    return network


def build_untrained(*, name: str, pretrained: bool, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Build the same network without downloading weights, for those of a checkpoint; arguments as in `build`."""
    names = models.list_models(module=models)
    if name not in names:
        matches = ", ".join(difflib.get_close_matches(name, names)) or ", ".join(names)
        raise UserError(f"model.name={name}: torchvision has no image classifier of this name; nearest: {matches}")
    arguments: dict[str, object] = {}
    if name in AUXILIARY_HEADS:
        # The official weights of these expect images in -1..1 and convert to that from ImageNet's normalization.
        arguments = {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    check_images(network, name, image_shape)
    return network


def check_images(network: nn.Module, name: str, image_shape: tuple[int, int, int]) -> None:
    """Run the network on meta tensors of the images' shape.

    Raises:
        UserError: If it does not take them.
    """
    state = {key: value.to("meta") for key, value in network.state_dict().items()}
    images = torch.empty(2, *image_shape, device="meta")
    was_training = network.training
    try:
        functional_call(network.eval(), state, (images,))
    except (RuntimeError, AssertionError, ValueError) as error:
        channels, height, width = image_shape
        raise UserError(
            f"model.name={name} does not take images of {channels} channels and {height}x{width} pixels ({error}): "
            "use larger images (data.image_size, if the data set has it; most of these networks were made for 224) "
            "or another network"
        ) from error
    network.train(was_training)


def _load_pretrained(network: nn.Module, name: str) -> None:
    weights: WeightsEnum = models.get_model_weights(name).DEFAULT
    auxiliary = AUXILIARY_HEADS.get(name, ())
    pretrained = {
        _current_key(key): value for key, value in _download(weights).items() if not key.startswith(auxiliary)
    }
    state = network.state_dict()
    head = {key for key in state if key in pretrained and pretrained[key].shape != state[key].shape}
    result = network.load_state_dict({key: value for key, value in pretrained.items() if key not in head}, strict=False)
    counters = {key for key in state if key.endswith("num_batches_tracked")}  # missing in older files
    if result.unexpected_keys or set(result.missing_keys) - head - counters:
        raise UserError(
            f"{_cache_file(weights)} does not hold the weights of {name}: delete the file, and it is downloaded again"
        )


def _download(weights: WeightsEnum) -> dict[str, Tensor]:
    """Load weights from torch's cache, or download and verify them; as tensors, never as code."""
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        file = _cache_file(weights)
        # torch's own message would advise to load the file with weights_only=False.
        reason = "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else str(error)
        download = f"download it elsewhere and save it as {file}"
        advice = f"delete {file}, and it is downloaded again" if file.exists() else download
        raise UserError(
            f"model.pretrained=true: cannot load the weights of {weights.url} ({reason}): {advice}, "
            "or use model.pretrained=false"
        ) from error
    return state


def _cache_file(weights: WeightsEnum) -> Path:
    url: str = weights.url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _current_key(key: str) -> str:
    """Rename keys of DenseNet's old files: `denselayer1.norm.1.bias` is `denselayer1.norm1.bias` now."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)
