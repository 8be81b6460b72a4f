"""Stratified split of the training images into training and validation."""

import torch
from jaxtyping import Int64
from torch import Tensor

from litlab.data.random_numbers import random_order
from litlab.errors import UserError


def stratified_split(
    labels: Int64[Tensor, " n"], *, class_names: tuple[str, ...], val_size: int | float, seed: int
) -> tuple[Int64[Tensor, " n_train"], Int64[Tensor, " n_val"]]:
    """Split rows into training and validation, both ascending; a function of (labels, val_size, seed).

    Each class gives its part to within one image. Where parts are not whole, the largest fractions are rounded up
    (lower class first).

    Args:
        labels: Labels of the rows, shape n.
        class_names: Names of the classes, by label.
        val_size: A number of images, or a fraction below 1; 0 for none. A fraction fits every data set: it gives at
            least one image, and each class keeps one to train on.
        seed: Seed of the draw.

    Raises:
        UserError: if a number of images leaves a class none to train on.
    """
    class_sizes = torch.bincount(labels, minlength=len(class_names))
    if isinstance(val_size, float):
        num_val = max(1, round(val_size * len(labels))) if val_size else 0
        quotas = torch.minimum(_quotas(class_sizes, num_val), (class_sizes - 1).clamp(min=0))
    else:
        if val_size >= len(labels):
            raise UserError(
                f"data.val_size={val_size} leaves nothing to train on: the training split has {len(labels)} images; "
                "use a smaller number, or a fraction such as 0.1"
            )
        quotas = _quotas(class_sizes, val_size)
        for name, quota, size in zip(class_names, quotas.tolist(), class_sizes.tolist(), strict=True):
            if size and quota >= size:
                raise UserError(
                    f"data.val_size={val_size} takes all {size} training images of class {name}: "
                    "use a smaller number, or a fraction such as 0.1"
                )
    train, val = [], []
    for label, quota in enumerate(quotas.tolist()):
        rows = random_order(torch.nonzero(labels == label).flatten(), seed)
        val.append(rows[:quota])
        train.append(rows[quota:])
    return torch.cat(train).sort().values, torch.cat(val).sort().values


def _quotas(class_sizes: Int64[Tensor, " classes"], num_val: int) -> Int64[Tensor, " classes"]:
    """Distribute validation images over classes in proportion to their sizes, by largest remainder."""
    num_images = int(class_sizes.sum())
    quotas = class_sizes * num_val // num_images
    remainders = class_sizes * num_val % num_images
    largest_first = torch.sort(remainders, descending=True, stable=True).indices
    quotas[largest_first[: num_val - int(quotas.sum())]] += 1
    return quotas
