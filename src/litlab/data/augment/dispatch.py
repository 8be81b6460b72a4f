"""Dispatch of the images of a batch to different operations, for color jitter and RandAugment."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A function of images, with its further arguments: tensors with a row for each image of the batch."""


def dispatch(
    images: UInt8[Tensor, "b c h w"], choices: Int64[Tensor, " b"], operations: Sequence[Operation]
) -> UInt8[Tensor, "b c h w"]:
    """Apply to each image the operation whose number it has.

    A CPU applies each operation only to the images that chose it, sorted into slices. Other devices apply all
    operations to all images and select: the sizes of slices would need a synchronization.
    """
    if images.is_cpu:
        return _dispatch_slices(images, choices, operations)
    result = images
    for number, (function, arguments) in enumerate(operations):
        result = torch.where((choices == number)[:, None, None, None], function(images, *arguments), result)
    return result


def _dispatch_slices(images: Tensor, choices: Tensor, operations: Sequence[Operation]) -> Tensor:
    order = choices.argsort(stable=True)
    counts = torch.bincount(choices, minlength=len(operations)).tolist()
    results = [
        function(images.index_select(0, rows), *(argument[rows] for argument in arguments))
        for rows, (function, arguments) in zip(torch.split(order, counts), operations, strict=True)
        if len(rows)
    ]
    return torch.cat(results).index_select(0, order.argsort()) if results else images


def identity(images: Tensor) -> Tensor:
    """Return the images unchanged."""
    return images
