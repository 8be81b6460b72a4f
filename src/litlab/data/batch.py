"""What a loader yields and a training step receives."""

from typing import NamedTuple

from torch import Tensor


class Partners(NamedTuple):
    """Of mixup and cutmix: another training image for each row of a batch.

    `share` comes with the mixing, which consumes `images`: what they hold then is nobody's business.
    """

    images: Tensor  # b c h w, uint8, from the loader
    labels: Tensor  # b, int64
    indices: Tensor  # b, int64
    share: Tensor | None = None  # b, float32: weight of the row's own label; that of the partner's is 1 - share


class Batch(NamedTuple):
    """One rank's part of one global batch.

    The counts are Python ints, so that slicing by them needs no device synchronisation.
    """

    images: Tensor  # b c h w: uint8 from the loader; float, augmented and normalised, after the transfer
    labels: Tensor  # b, int64
    indices: Tensor  # b, int64: row in the arrays of the official split (validation rows are rows of train)
    num_valid: int  # the first num_valid rows are real; the rest repeats one, so that all ranks have one batch shape
    num_global: int  # real rows in this step over all ranks
    partners: Partners | None = None  # while training with mixup or cutmix
