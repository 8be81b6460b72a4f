"""Stratified splits of images: a drawn part, or one of k folds."""

import torch
from jaxtyping import Int64
from torch import Tensor

from litlab.data.random_numbers import random_order
from litlab.errors import UserError


def stratified_split(
    labels: Int64[Tensor, " n"], *, class_names: tuple[str, ...], size: int | float, seed: int, setting: str
) -> tuple[Int64[Tensor, " n_train"], Int64[Tensor, " n_drawn"]]:
    """Split rows into those to train on and those drawn for another split, both ascending.

    The split is a function of labels, size and seed.

    Each class gives its part to within one image. Where parts are not whole, the largest fractions are rounded up
    (lower class first).

    Args:
        labels: Labels of the rows, shape n.
        class_names: Names of the classes, by label.
        size: A number of images to draw, or a fraction below 1; 0 for none. A fraction fits every data set: it gives at
            least one image, and each class keeps one to train on.
        seed: Seed of the draw.
        setting: Key of `size` in the config, for messages.

    Raises:
        UserError: if a number of images leaves a class none to train on.
    """
    class_sizes = torch.bincount(labels, minlength=len(class_names))
    if isinstance(size, float):
        num_drawn = max(1, round(size * len(labels))) if size else 0
        quotas = torch.minimum(_quotas(class_sizes, num_drawn), (class_sizes - 1).clamp(min=0))
    else:
        if size >= len(labels):
            raise UserError(
                f"{setting}={size} leaves nothing to train on: the training split has {len(labels)} images; "
                "use a smaller number, or a fraction such as 0.1"
            )
        quotas = _quotas(class_sizes, size)
        for name, quota, class_size in zip(class_names, quotas.tolist(), class_sizes.tolist(), strict=True):
            if class_size and quota >= class_size:
                raise UserError(
                    f"{setting}={size} takes all {class_size} training images of class {name}: "
                    "use a smaller number, or a fraction such as 0.1"
                )
    train, drawn = [], []
    for label, quota in enumerate(quotas.tolist()):
        rows = random_order(torch.nonzero(labels == label).flatten(), seed)
        drawn.append(rows[:quota])
        train.append(rows[quota:])
    return torch.cat(train).sort().values, torch.cat(drawn).sort().values


def stratified_fold(
    labels: Int64[Tensor, " n"], *, class_names: tuple[str, ...], folds: int, fold: int, seed: int
) -> tuple[Int64[Tensor, " n_train"], Int64[Tensor, " n_fold"]]:
    """Split rows into those to train on and one of `folds` disjoint folds, which together hold all rows.

    The folds are a function of labels, their number and the seed; their sizes, and those of each class in them, differ
    by one image at most. The result is ascending.

    Args:
        labels: Labels of the rows, shape n.
        class_names: Names of the classes, by label.
        folds: Number of folds.
        fold: Number of the fold, from 0.
        seed: Seed of the folds.

    Raises:
        UserError: if a fold would be empty, or if its only image leaves a class none to train on.
    """
    if folds > len(labels):
        raise UserError(f"data.folds={folds}: the training split has only {len(labels)} images; use a smaller number")
    class_sizes = torch.bincount(labels, minlength=len(class_names)).tolist()
    if single := [name for name, size in zip(class_names, class_sizes, strict=True) if size == 1]:
        raise UserError(
            f"data.folds={folds}: class {single[0]} has a single training image, so one of the folds would leave none "
            "to train on; add images, or leave the class out"
        )
    # Assign rows to folds round-robin, by class.
    rows = [random_order(torch.nonzero(labels == label).flatten(), seed) for label in range(len(class_names))]
    order = torch.cat(rows)
    is_in_fold = torch.arange(len(order)) % folds == fold
    return order[~is_in_fold].sort().values, order[is_in_fold].sort().values


def _quotas(class_sizes: Int64[Tensor, " classes"], num_drawn: int) -> Int64[Tensor, " classes"]:
    """Distribute images over classes in proportion to their sizes, by largest remainder."""
    num_images = int(class_sizes.sum())
    quotas = class_sizes * num_drawn // num_images
    remainders = class_sizes * num_drawn % num_images
    largest_first = torch.sort(remainders, descending=True, stable=True).indices
    quotas[largest_first[: num_drawn - int(quotas.sum())]] += 1
    return quotas
