"""Sections of the classes that a run is put together from: data, networks, tasks, optimizers, schedules, callbacks."""

from typing import Annotated, Literal

from pydantic import Field

from litlab.config.section import (
    Channels,
    Count,
    CountOrZero,
    Fraction,
    NonNegative,
    OpenFraction,
    Positive,
    Section,
    Seed,
)


class ColorJitter(Section):
    brightness: NonNegative
    contrast: NonNegative
    saturation: NonNegative
    hue: Annotated[float, Field(ge=0, le=0.5)]


class RandAugment(Section):
    num_ops: Count
    magnitude: Annotated[int, Field(ge=0, le=30)]


class ImageData(Section):
    batch_size: Count
    val_size: CountOrZero | OpenFraction
    val_seed: Seed
    seed: Seed
    crop_padding: CountOrZero
    flip: bool | Literal["alternating"]
    cutout: CountOrZero
    mixup: NonNegative
    cutmix: NonNegative
    color_jitter: ColorJitter | None
    rand_augment: RandAugment | None
    progressive_sizes: Annotated[list[Count], Field(min_length=1)] | None
    mean: Channels
    std: Channels


class CIFAR10(ImageData):
    root: str
    cache: str
    url: Annotated[str, Field(pattern=r"^https?://")]


class ImageFolder(ImageData):
    root: str
    cache: str
    image_size: Count
    storage: Literal["memory", "stream"]
    num_workers: CountOrZero


class Shapes(ImageData):
    num_train: Count
    num_test: Count
    data_seed: Seed


class CNN(Section):
    widths: Annotated[list[Count], Field(min_length=1)]
    hidden: list[Count]


class ResNet18(Section):
    width: Count


class WhitenedCNN(Section):
    widths: Annotated[list[Count], Field(min_length=1)]
    convolutions: Annotated[list[Count], Field(min_length=1)]
    patch: Count
    stride: Count
    whitened: Count | None
    pool_first: bool
    residual: bool
    activation: Literal["gelu", "relu"]


class TorchvisionModel(Section):
    name: str
    pretrained: bool


class ImageClassifier(Section):
    label_smoothing: OpenFraction
    channels_last: bool
    compile: bool
    test_time_flip: bool
    test_time_shift: CountOrZero


class SGD(Section):
    lr: Positive
    momentum: OpenFraction = 0
    dampening: OpenFraction = 0
    weight_decay: NonNegative = 0
    nesterov: bool = False
    maximize: bool = False
    foreach: bool | None = None
    fused: bool | None = None


class AdamW(Section):
    lr: Positive
    betas: list[OpenFraction] = Field([0.9, 0.999], min_length=2, max_length=2)
    eps: Positive = 1e-8
    weight_decay: NonNegative = 0.01
    amsgrad: bool = False
    maximize: bool = False
    foreach: bool | None = None
    capturable: bool = False
    fused: bool | None = None


class Muon(Section):
    lr: Positive
    momentum: OpenFraction
    num_iterations: Count
    linear_lr: Positive
    others_lr: Positive
    sgd_momentum: OpenFraction
    weight_decay: NonNegative


class OneCycle(Section):
    warmup: Fraction
    initial: Fraction
    final: Fraction


class Cosine(Section):
    warmup: Fraction
    final: Fraction


class Linear(Section):
    warmup: Fraction
    final: Fraction


class Nothing(Section):
    """No keys of its own: what it needs, it is given."""


class Pictures(Section):
    num_images: Count


class EMA(Section):
    decay: OpenFraction
    every_steps: Count
