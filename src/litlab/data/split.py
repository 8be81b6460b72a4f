"""Validation images, drawn from the training split."""

import torch
from jaxtyping import Int64
from torch import Tensor

from litlab.data.random_numbers import random_order
from litlab.errors import UserError


def stratified_split(
    labels: Int64[Tensor, " n"], *, class_names: tuple[str, ...], val_size: int | float, seed: int
) -> tuple[Int64[Tensor, " n_train"], Int64[Tensor, " n_val"]]:
    """Rows for training and rows for validation, both ascending; a function of (labels, val_size, seed).

    val_size: a number of images, or a share of them below 1; 0 for none. A share fits every data set: of at least one
    image, and each class keeps one to train on. A number that leaves a class none raises UserError.

    Each class gives its part of them to within one image; where parts are not whole, the largest fractions are rounded
    up (lower class first).
    """
    class_sizes = torch.bincount(labels, minlength=len(class_names))
    if isinstance(val_size, float):
        num_val = max(1, round(val_size * len(labels))) if val_size else 0
        quotas = torch.minimum(_quotas(class_sizes, num_val), (class_sizes - 1).clamp(min=0))
    else:
        _check_number(class_sizes, class_names, val_size)
        quotas = _quotas(class_sizes, val_size)
    train, val = [], []
    for label, quota in enumerate(quotas.tolist()):
        members = random_order(torch.nonzero(labels == label).flatten(), seed)
        val.append(members[:quota])
        train.append(members[quota:])
    return torch.cat(train).sort().values, torch.cat(val).sort().values


def _quotas(class_sizes: Int64[Tensor, " classes"], num_val: int) -> Int64[Tensor, " classes"]:
    num_images = int(class_sizes.sum())
    quotas = class_sizes * num_val // num_images
    fractions = class_sizes * num_val % num_images
    largest_first = torch.sort(fractions, descending=True, stable=True).indices
    quotas[largest_first[: num_val - int(quotas.sum())]] += 1
    return quotas


def _check_number(class_sizes: Int64[Tensor, " classes"], class_names: tuple[str, ...], val_size: int) -> None:
    advice = "use a smaller number, or a share such as 0.1"
    num_images = int(class_sizes.sum())
    if val_size >= num_images:
        raise UserError(
            f"data.val_size={val_size} leaves nothing to train on: the training split has {num_images} images; {advice}"
        )
    quotas = _quotas(class_sizes, val_size)
    for name, quota, size in zip(class_names, quotas.tolist(), class_sizes.tolist(), strict=True):
        if size and quota >= size:
            raise UserError(f"data.val_size={val_size} takes all {size} training images of class {name}: {advice}")
