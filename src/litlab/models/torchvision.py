"""Any image classifier of torchvision's registry."""

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

WITH_AUXILIARY_HEADS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def build(*, name: str, pretrained: bool, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The network `name`, from images, `b 3 h w`, to logits, `b num_classes`, also in training (no auxiliary heads).

    Args:
        name: as in `torchvision.models.list_models(module=torchvision.models)`.
        pretrained: start from torchvision's default weights, trained on ImageNet; the head starts anew unless
            num_classes is theirs (1000). They expect ImageNet's normalisation of the images (`data.mean`, `data.std`).
        num_classes: number of logits.
        image_shape: channels, height and width of the images in pixels.

    Raises:
        UserError: no such network, images it does not take, or weights that can't be had.
    """
    network = build_untrained(name=name, pretrained=pretrained, num_classes=num_classes, image_shape=image_shape)
    if pretrained:
        _load_pretrained(network, name)
    return network


def build_untrained(*, name: str, pretrained: bool, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """The same network without weights being fetched, for those of a checkpoint; arguments and errors as in `build`."""
    names = models.list_models(module=models)
    if name not in names:
        nearest = ", ".join(difflib.get_close_matches(name, names)) or ", ".join(names)
        raise UserError(f"model.name={name} is no image classifier of torchvision; nearest: {nearest}")
    arguments: dict[str, object] = {}
    if name in WITH_AUXILIARY_HEADS:
        # The official weights of these expect images in -1..1 and convert to that from ImageNet's normalisation.
        arguments = {"aux_logits": False, "init_weights": True, "transform_input": pretrained}
    network: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **arguments)
    _check_images(network, name, image_shape)
    return network


def _check_images(network: nn.Module, name: str, image_shape: tuple[int, int, int]) -> None:
    """Tries the images' shape without data or computation."""
    state = {key: value.to("meta") for key, value in network.state_dict().items()}
    images = torch.empty(2, *image_shape, device="meta")
    was_training = network.training
    try:
        functional_call(network.eval(), state, (images,))
    except (RuntimeError, AssertionError, ValueError) as error:
        channels, height, width = image_shape
        raise UserError(
            f"model.name={name} does not take images of {channels} channels and {height}x{width} pixels ({error}): "
            "use larger images (data.image_size, where the data set has it; most of these networks were made for 224) "
            "or another network"
        ) from error
    network.train(was_training)


def _load_pretrained(network: nn.Module, name: str) -> None:
    weights: WeightsEnum = models.get_model_weights(name).DEFAULT
    auxiliary = WITH_AUXILIARY_HEADS.get(name, ())
    state = {_current_key(key): value for key, value in _fetch(weights).items() if not key.startswith(auxiliary)}
    own = network.state_dict()
    head = {key for key in own if key in state and state[key].shape != own[key].shape}
    result = network.load_state_dict({key: value for key, value in state.items() if key not in head}, strict=False)
    counters = {key for key in own if key.endswith("num_batches_tracked")}  # lacking in older files
    if result.unexpected_keys or set(result.missing_keys) - head - counters:
        raise UserError(
            f"{_file(weights)} does not hold the weights of {name}: delete the file, so that it is fetched anew"
        )


def _fetch(weights: WeightsEnum) -> dict[str, Tensor]:
    """The weights from torch's cache or else from their address, verified when fetched; as tensors, never as code."""
    try:
        state: dict[str, Tensor] = weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        file = _file(weights)
        # torch's own message would advise to load the file with weights_only=False.
        reason = "it holds more than tensors" if isinstance(error, pickle.UnpicklingError) else str(error)
        advice = "delete it, so that it is fetched anew" if file.exists() else "fetch it elsewhere and put it there"
        raise UserError(
            f"model.pretrained=true: no weights from {weights.url} ({reason}); their file is {file}: {advice}, "
            "or use model.pretrained=false"
        ) from error
    return state


def _file(weights: WeightsEnum) -> Path:
    url: str = weights.url
    return Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]


def _current_key(key: str) -> str:
    """DenseNet's files are from when names could hold dots: `denselayer1.norm.1.bias` is `denselayer1.norm1.bias`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", key)
