"""Settings of a data module held against each other, the images, and the task."""

from collections.abc import Mapping, Sequence

import torch
from lightning import LightningModule
from torch import nn

from litlab.data.augment import Mixing
from litlab.data.settings import ImageSettings
from litlab.data.shrink import check_sizes
from litlab.errors import UserError


def check_settings(name: str, settings: Mapping[str, object]) -> None:
    """Raises UserError where there are not exactly the settings that all data modules have."""
    expected = ImageSettings.__annotations__.keys()
    wrong = [f"lacks {key}" for key in expected - settings.keys()]
    wrong += [f"has no {key}" for key in settings.keys() - expected]
    if wrong:
        raise UserError(
            f"data: {name} {', '.join(sorted(wrong))}; `defaults: [base/images]` gives its YAML the settings that all "
            "data sets have, and its constructor hands them on as **settings"
        )


def check_fit(settings: ImageSettings, image_shape: tuple[int, int, int]) -> None:
    """Raises UserError for an augmentation that images of this shape (c, h, w) can't have."""
    num_channels, height, width = image_shape
    smallest = min(height, width)
    if settings["crop_padding"] >= smallest:
        raise UserError(
            f"data.crop_padding={settings['crop_padding']} must be smaller than the images "
            f"({smallest} pixels): a reflection can't be wider than the image"
        )
    if settings["cutout"] > smallest:
        raise UserError(
            f"data.cutout={settings['cutout']}: the side of the square that is blanked can't be larger than the images "
            f"({smallest} pixels); half of that is usual"
        )
    colored = [key for key in ("color_jitter", "rand_augment") if settings[key] is not None]
    if colored and num_channels not in (1, 3):
        raise UserError(
            f"data.{colored[0]} is for images of 1 (grey) or 3 (red, green, blue) channels, not of {num_channels}: set "
            "it to null"
        )
    if settings["progressive_sizes"]:
        check_sizes(settings["progressive_sizes"], (height, width))


def check_task(task: LightningModule, mixing: Mixing) -> None:
    """Raises UserError where images would be mixed, but not their labels."""
    if mixing.active and not getattr(task, "takes_partners", False):
        raise UserError(
            f"data.mixup, data.cutmix: {type(task).__name__} would learn from mixed images as if each had one label. "
            "Its loss must weigh the labels of `batch.partners` by their `share`; where it does, let it say so by an "
            "attribute `takes_partners = True`. Or set both to 0"
        )


def check_network(task: LightningModule, sizes: Sequence[int] | None, num_channels: int) -> None:
    """Raises UserError where the network of a task can't take images of one of these sizes."""
    network = getattr(task, "network", None)
    if not sizes or not isinstance(network, nn.Module):
        return
    for size in sorted(set(sizes)):
        images = torch.zeros(1, num_channels, size, size, device=task.device, dtype=task.dtype)  # type: ignore[arg-type]
        training = [module for module in network.modules() if module.training]
        try:
            with torch.no_grad():
                network.eval().forward(images)  # not called, or a compiled one would be compiled for it
        except RuntimeError as error:
            raise UserError(
                f"data.progressive_sizes={list(sizes)}: {type(network).__name__} can't take images of {size}x{size} "
                f"({str(error).splitlines()[0]}). Take a network without a fixed image size, such as model=resnet18, "
                "or data.progressive_sizes=null"
            ) from error
        finally:
            for module in training:
                module.training = True
