"""Types and ranges of every key, in one torch-free place; tests/config/test_schema.py ties it to the constructors.

A section whose `_target_` stands in SECTIONS is checked against its model. Every other target is foreign: `foreign.py`
imports it, in a process of its own, and checks its arguments against its signature.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

# Metrics of validation under litlab's own task, besides those of `task.metrics`.
VALIDATION_METRICS = ("val/accuracy", "val/loss", "val/top5_accuracy", "val/calibration_error")


def validation_metrics(task: dict[str, Any]) -> tuple[str, ...]:
    """Return the metrics that litlab's own task logs in validation, which an objective can be."""
    return (*VALIDATION_METRICS, *(f"val/{name}" for name in task.get("metrics") or {}))


def _not_built_in(name: str) -> str:
    if f"val/{name}" in VALIDATION_METRICS:
        raise ValueError(f"{name} is a built-in metric; use another name")
    return name


Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Channels = Annotated[list[Positive], Field(min_length=1, max_length=4)] | None
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$"), AfterValidator(_not_built_in)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+=-]*$")]


class Section(BaseModel):
    """A part of the config: no unknown keys, no silent conversions."""

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
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
    metrics: dict[MetricName, dict[str, Any]]


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


class NoArguments(Section):
    """No keys of its own: what it needs, it is given."""


class ImageCallback(Section):
    num_images: Count


class EMA(Section):
    decay: OpenFraction
    every_steps: Count


def _not_test(metric: str) -> str:
    if metric.startswith("test"):
        raise ValueError("nothing is ever selected on the test split; use a validation metric such as val/accuracy")
    return metric


BatchLimit = Fraction | Count | None


class Objective(Section):
    metric: Annotated[str, Field(min_length=1), AfterValidator(_not_test)]
    mode: Literal["max", "min"]


class Checkpoint(Section):
    every_steps: Count | None
    every_minutes: Positive | None


class Study(Section):
    name: Name | None
    swept: list[str] = Field([])


class Root(Section):
    """The keys of ours at the top. The groups, of which some can be left out, are checked by their target."""

    format: Literal[2]
    name: Name
    seed: Seed
    threads: Count | None
    objective: Objective | None
    checkpoint: Checkpoint
    study: Study
    data: dict[str, Any]
    model: dict[str, Any] | None = None
    task: dict[str, Any]
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    callbacks: dict[str, dict[str, Any] | None] | None = None
    logger: dict[str, dict[str, Any] | None] | None = None
    trainer: dict[str, Any]


class Pool(Section):
    """Settings of `hydra/launcher=pool`."""

    jobs: Count | None
    jobs_per_device: Count
    timeout: Positive | None
    retries: CountOrZero
    dry_run: bool


class Trainer(Section):
    """The arguments of lightning.pytorch.Trainer in a config; loggers and callbacks have groups of their own."""

    accelerator: str
    devices: Count | Literal["auto", -1] | Annotated[list[CountOrZero], Field(min_length=1)]
    num_nodes: Count
    strategy: str | dict[str, Any]
    precision: Literal[
        "64-true", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "transformer-engine"
    ]  # fmt: skip
    max_epochs: Count | Literal[-1] | None
    accumulate_grad_batches: Count
    gradient_clip_val: NonNegative | None
    check_val_every_n_epoch: Count | None
    val_check_interval: Fraction | Count | None
    log_every_n_steps: Count
    deterministic: bool | Literal["warn"]
    gradient_clip_algorithm: Literal["value", "norm"] | None = None
    max_steps: Count | Literal[-1] = -1
    min_epochs: Count | None = None
    min_steps: Count | None = None
    max_time: str | dict[str, int] | None = None
    limit_train_batches: BatchLimit = None
    limit_val_batches: BatchLimit = None
    limit_test_batches: BatchLimit = None
    overfit_batches: Fraction | Count = 0.0
    benchmark: bool | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    sync_batchnorm: bool = False
    inference_mode: bool = True


# Config group -> class that litlab's configs name in it -> its keys. An untrusted run may name these classes and, of
# others, only those in `litlab.config.trust`.
GROUP_SECTIONS: dict[str, dict[str, type[Section]]] = {
    "data": {
        "litlab.data.cifar10.CIFAR10": CIFAR10,
        "litlab.data.image_folder.ImageFolder": ImageFolder,
        "litlab.data.shapes.Shapes": Shapes,
    },
    "model": {
        "litlab.models.cnn.CNN": CNN,
        "litlab.models.resnet.ResNet18": ResNet18,
        "litlab.models.whitened.WhitenedCNN": WhitenedCNN,
        "litlab.models.torchvision.build": TorchvisionModel,
    },
    "task": {"litlab.tasks.image_classifier.ImageClassifier": ImageClassifier},
    "optimizer": {"torch.optim.SGD": SGD, "torch.optim.AdamW": AdamW, "litlab.optim.muon.Muon": Muon},
    "schedule": {
        "litlab.optim.schedules.one_cycle": OneCycle,
        "litlab.optim.schedules.cosine": Cosine,
        "litlab.optim.schedules.linear": Linear,
        "litlab.optim.schedules.constant": NoArguments,
    },
    "callbacks": {
        "litlab.callbacks.training_log.TrainingLog": NoArguments,
        "litlab.callbacks.images.TrainingImages": ImageCallback,
        "litlab.callbacks.images.WorstMistakes": ImageCallback,
        "litlab.callbacks.confusion_matrix.ConfusionMatrix": NoArguments,
        "litlab.callbacks.ema.EMA": EMA,
    },
    "logger": {"litlab.loggers.TensorBoard": NoArguments},
    "trainer": {"lightning.pytorch.Trainer": Trainer},
}
SECTIONS: dict[str, type[Section]] = {
    target: section for sections in GROUP_SECTIONS.values() for target, section in sections.items()
}
