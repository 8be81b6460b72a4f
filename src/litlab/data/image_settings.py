"""The settings that all data sets have in common; conf/data/base/images.yaml has their values."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict


class ImageSettings(TypedDict):
    """Arguments of every `ImageDataModule`; a subclass takes them as `**settings: Unpack[ImageSettings]`.

    batch_size: images per step over all devices, for training and evaluation.
    val_size: images drawn from the training split, stratified, by `val_seed`: a number, or a share below 1; 0 for none.
    seed: of the order of the epochs and of the augmentation.
    crop_padding, flip, color_jitter, rand_augment, cutout: augmentation of training images, see `Augmentation`.
    mixup, cutmix: of training images with each other, see `Mixing`.
    progressive_sizes: heights and widths in pixels that training images are shrunk to, for equal shares of the epochs;
        the last is the images' own. None for that one alone.
    mean, std: per channel, of pixels in 0..1; None for those of the data set's training split.
    """

    batch_size: int
    val_size: int | float
    val_seed: int
    seed: int
    crop_padding: int
    flip: bool | Literal["alternating"]
    cutout: int
    mixup: float
    cutmix: float
    color_jitter: Mapping[str, float] | None
    rand_augment: Mapping[str, int] | None
    progressive_sizes: Sequence[int] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
