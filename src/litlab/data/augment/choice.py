"""One of several operations for each image of a batch."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

Operation = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A function of images, and what else it is given: tensors with a row for each image of the batch."""


def operate(
    images: UInt8[Tensor, "b c h w"], choice: Int64[Tensor, " b"], operations: Sequence[Operation]
) -> UInt8[Tensor, "b c h w"]:
    """Each image by the operation whose number it has.

    A CPU does each operation for the images that want it, and for those alone: sorted, they are slices. Elsewhere all
    is computed for all images and taken from: how many want it is a number that the device would have to be waited for.
    """
    if images.is_cpu:
        return _in_slices(images, choice, operations)
    result = images
    for number, (function, parameters) in enumerate(operations):
        result = torch.where((choice == number)[:, None, None, None], function(images, *parameters), result)
    return result


def _in_slices(images: Tensor, choice: Tensor, operations: Sequence[Operation]) -> Tensor:
    order = choice.argsort(stable=True)
    counts = torch.bincount(choice, minlength=len(operations)).tolist()
    slices = torch.split(order, counts)
    parts = [
        function(images.index_select(0, rows), *(each[rows] for each in parameters))
        for rows, (function, parameters) in zip(slices, operations, strict=True)
        if len(rows)
    ]
    return torch.cat(parts).index_select(0, order.argsort()) if parts else images


def unchanged(images: Tensor) -> Tensor:
    """The operation that does nothing."""
    return images
