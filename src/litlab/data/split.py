"""Validation images, drawn from the training split."""

import torch
from jaxtyping import Int64
from torch import Tensor

from litlab.data.random_numbers import random_order
from litlab.errors import UserError


def stratified_split(
    labels: Int64[Tensor, " n"], *, class_names: tuple[str, ...], val_size: int, seed: int
) -> tuple[Int64[Tensor, " n_train"], Int64[Tensor, " n_val"]]:
    """Rows for training and rows for validation, both ascending; a function of (labels, val_size, seed).

    Each class gives its share of `val_size` images to within one image; where shares are not whole, the largest
    fractions are rounded up (lower class first). Raises UserError where a class would keep no image to train on.
    """
    quotas = _quotas(torch.bincount(labels, minlength=len(class_names)), class_names, val_size)
    train, val = [], []
    for label, quota in enumerate(quotas):
        members = random_order(torch.nonzero(labels == label).flatten(), seed)
        val.append(members[:quota])
        train.append(members[quota:])
    return torch.cat(train).sort().values, torch.cat(val).sort().values


def _quotas(class_sizes: Int64[Tensor, " classes"], class_names: tuple[str, ...], val_size: int) -> list[int]:
    num_images = int(class_sizes.sum())
    if val_size >= num_images:
        raise UserError(
            f"data.val_size={val_size} leaves nothing to train on: the training split has {num_images} images"
        )
    quotas = class_sizes * val_size // num_images
    fractions = class_sizes * val_size % num_images
    largest_first = torch.sort(fractions, descending=True, stable=True).indices
    quotas[largest_first[: val_size - int(quotas.sum())]] += 1
    for name, quota, size in zip(class_names, quotas.tolist(), class_sizes.tolist(), strict=True):
        if size and quota >= size:
            raise UserError(
                f"data.val_size={val_size} takes all {size} training images of class {name}: use a smaller value"
            )
    return [int(quota) for quota in quotas]
