"""Image classifiers of timm, an optional dependency, with its pretrained weights."""

import difflib
from typing import Any

from torch import nn

from litlab.errors import UserError
from litlab.models.torchvision import check_images


def build(*, name: str, pretrained: bool, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Build a network that returns logits `b num_classes` for images of any number of channels.

    Networks for one size of images, such as vision transformers, are built for that of the data.

    Args:
        name: Name as in `timm.list_models()`, also with the tag of its weights, as in `resnet18.a1_in1k`.
        pretrained: Start from timm's weights, with a new head. They expect ImageNet's normalization of the images
            (`data.mean`, `data.std`), or that of `pretrained_cfg` of the network.
        num_classes: Number of logits.
        image_shape: Channels, height and width of the images in pixels.

    Raises:
        UserError: There is no such network, it does not take these images, or its weights cannot be loaded.
    """
    import timm

    if not timm.is_model(name):
        known = timm.list_models()
        matches = ", ".join(difflib.get_close_matches(name.partition(".")[0], known)) or "see timm.list_models()"
        raise UserError(f"model.name={name}: timm {timm.__version__} has no network of this name; nearest: {matches}")
    arguments: dict[str, Any] = {"num_classes": num_classes, "in_chans": image_shape[0]}
    try:
        settings = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        known = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")) or "none"
        raise UserError(f"model.name={name}: timm {timm.__version__} has no such weights; known: {known}") from error
    if settings is not None and settings.fixed_input_size:
        arguments["img_size"] = image_shape[1:]
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except (OSError, RuntimeError, AssertionError, ValueError) as error:  # no weights, no network, another size
        advice = ": use model.pretrained=false, or weights in the cache of the Hugging Face hub" if pretrained else ""
        raise UserError(f"model.name={name}: timm can't build it ({' '.join(str(error).split())}){advice}") from error
    check_images(network, name, image_shape)
    return network


def build_untrained(*, name: str, pretrained: bool, num_classes: int, image_shape: tuple[int, int, int]) -> nn.Module:
    """Build the same network without downloading weights, for those of a checkpoint; arguments as in `build`."""
    return build(name=name, pretrained=False, num_classes=num_classes, image_shape=image_shape)
