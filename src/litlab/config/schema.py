"""Schema of the config: types and ranges of all keys, without torch.

A comment beside its default in conf/ says what a key is; `Attributes:` says it of a key whose default is here. The
arguments of a class in SECTIONS are checked against its section. All other classes are foreign:
`litlab.config.targets` checks their arguments against their signatures, and those that they inherit from a class of
litlab's against its section. tests/config/test_schema.py checks that sections, constructors and conf/ agree.
"""

import math
import re
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from litlab.config.ablation_changes import check_changes, is_plain_name
from litlab.config.tree import did_you_mean
from litlab.runs.metrics import Mode, split_of

# Metrics of validation under litlab's own task, besides those of `task.metrics`, and which values are better.
VALIDATION_METRICS: dict[str, Mode] = {
    "val/accuracy": "max",
    "val/loss": "min",
    "val/top5_accuracy": "max",
    "val/calibration_error": "min",
}


def validation_metrics(task: dict[str, Any]) -> tuple[str, ...]:
    """Return the metrics that litlab's own task logs in validation, which an objective can be."""
    metrics = task.get("metrics")  # of a foreign task, anything
    return (*VALIDATION_METRICS, *(f"val/{name}" for name in (metrics if isinstance(metrics, dict) else ())))


def _not_built_in(name: str) -> str:
    if f"val/{name}" in VALIDATION_METRICS:
        raise ValueError(f"{name} is a built-in metric; use another name")
    return name


def _per_image(loss: dict[str, Any]) -> dict[str, Any]:
    if isinstance(loss.get("weight"), list) and str(loss.get("_target_")).startswith("torch.nn."):
        raise ValueError(
            "weights of the classes are task.class_weights, as in task.class_weights=[1,5]; leave out weight"
        )
    if loss.get("reduction", "none") != "none":
        raise ValueError(
            "its reduction is none: litlab takes the mean over the images of all ranks itself; leave out reduction"
        )
    return loss


def _weights(value: Any) -> Any:
    is_list = isinstance(value, list) and len(value) > 1 and all(type(weight) in (int, float) for weight in value)
    if value in (None, "balanced") or (is_list and min(value) >= 0 and 0 < sum(value) < math.inf):
        return value
    raise ValueError("expected balanced, null or one weight for each class, none negative and not all 0, as in [1, 5]")


def _check_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"expected a regular expression; {error}") from error
    return pattern


Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(ge=0, lt=1)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
ImageSize = Count | Annotated[list[Count], Field(min_length=2, max_length=2)]
BitDepth = Annotated[int, Field(ge=8, le=16)]
Channels = Annotated[list[Positive], Field(min_length=1, max_length=4)] | None
MetricName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$"), AfterValidator(_not_built_in)]
Loss = Annotated[dict[str, Any], AfterValidator(_per_image), Field(description="node of a class")]
ClassWeights = Annotated[  # an error of one sentence, where a union has one for each member
    Any, AfterValidator(_weights), Field(description="`balanced`, list of numbers ≥ 0 or `null`")
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+=-]*$")]


# Arguments on the data set, which constructors with parameters of these names get from the data module.
FACTS = ("num_classes", "class_names", "class_counts", "image_shape", "mean", "std")


class Section(BaseModel):
    """Part of the config: unknown keys are refused, values are not converted.

    Attributes:
        facts: Those of `FACTS` that the class takes. A config has them only for a data module that does not tell them.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, allow_inf_nan=False, protected_namespaces=(), defer_build=True
    )
    facts: ClassVar[tuple[str, ...]] = ()


class DataFacts(Section):
    """Types of `FACTS`."""

    num_classes: Count = Field(0)
    class_names: Annotated[list[str], Field(min_length=1)] = Field([])
    class_counts: Annotated[list[CountOrZero], Field(min_length=1)] = Field([])
    image_shape: Annotated[list[Count], Field(min_length=3, max_length=3)] = Field([])
    mean: Annotated[list[float], Field(min_length=1)] = Field([])
    std: Annotated[list[Positive], Field(min_length=1)] = Field([])


class ColorJitter(Section):
    """Keys of `data.color_jitter`."""

    brightness: NonNegative
    contrast: NonNegative
    saturation: NonNegative
    hue: Annotated[float, Field(ge=0, le=0.5)]


class RandAugment(Section):
    """Keys of `data.rand_augment`."""

    num_ops: Count
    magnitude: Annotated[int, Field(ge=0, le=30)]


def _names_class(node: dict[str, Any]) -> dict[str, Any]:
    if not isinstance(node.get("_target_"), str):
        raise ValueError("expected a transform by _target_, as in {_target_: torchvision.transforms.v2.CenterCrop}")
    return node


Transform = Annotated[dict[str, Any], AfterValidator(_names_class), Field(description="node of a class")]


class Transforms(Section):
    """Keys of `data.transforms`."""

    train: list[Transform]
    eval: list[Transform]


_MAX_STOPS = 32


def _stops(value: Any) -> Any:
    values = value if isinstance(value, list) and len(value) == 2 else [value, value]
    is_number = all(isinstance(number, int | float) and not isinstance(number, bool) for number in values)
    if not is_number or not 0 <= values[0] <= values[1] <= _MAX_STOPS:
        raise ValueError(
            f"expected a number of stops from 0 to {_MAX_STOPS}, or the least and the largest, as in [2, 8]; "
            f"found {value}"
        )
    return value


class LowLight(Section):
    """Keys of `data.low_light`.

    Attributes:
        stops: Stops of light that an image loses, each a factor of 2; of a range, each image gets a number of its own.
        photons: Photons of a white pixel before that, each an electron.
        read_noise: Standard deviation of the normal noise of the camera, in electrons.
        seed: Seed of stops and noise; independent of `seed`, so that runs that are compared see the same images.
    """

    stops: Annotated[  # an error of one sentence, where a union has one for each member
        Any, AfterValidator(_stops), Field(description=f"number from 0 to {_MAX_STOPS} or ascending list of 2")
    ]
    photons: Annotated[float, Field(gt=0, lt=2**16)]  # what the tables of litlab.data.low_light are for
    read_noise: NonNegative
    seed: Seed = 0


class ImageData(Section):
    """Keys of conf/data/base/images.yaml."""

    batch_size: Count
    val_size: CountOrZero | OpenFraction
    val_seed: Seed
    folds: Annotated[int, Field(ge=2)] | None
    fold: CountOrZero | None
    seed: Seed
    hard_fraction: Annotated[float, Field(gt=0, le=1)]
    low_light: LowLight | None
    transforms: Transforms
    num_workers: CountOrZero
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
    """Keys of `data=cifar10`."""

    root: str
    cache: str
    url: Annotated[str, Field(pattern=r"^https?://")]


class FileData(ImageData):
    """Keys of all data modules that decode files."""

    resize: Literal["squash", "crop", "pad"]
    cache: str
    test_size: CountOrZero | OpenFraction
    test_seed: Seed


class SplitNames(Section):
    """Keys of `data.folders` and `data.splits`."""

    train: list[str]
    val: list[str]
    test: list[str]


class ImageFolder(FileData):
    """Keys of `data=image_folder`."""

    root: str
    image_size: ImageSize
    bit_depth: BitDepth | None
    skip_unreadable: bool
    storage: Literal["memory", "stream"]
    folders: SplitNames
    classes: Annotated[list[str | int], Field(min_length=2)] | None
    encoding: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] | None


class Shapes(ImageData):
    """Keys of `data=shapes`."""

    num_train: Count
    num_test: Count
    data_seed: Seed


# Classification data sets of torchvision whose images all have one size, and those that need `data.image_size`.
TORCHVISION_OF_ONE_SIZE = (
    "CIFAR10", "CIFAR100", "EMNIST", "EuroSAT", "FER2013", "FashionMNIST", "KMNIST", "MNIST", "PCAM", "QMNIST",
    "SEMEION", "STL10", "SVHN", "USPS",
)  # fmt: skip
TORCHVISION_OF_ANY_SIZE = (
    "CLEVRClassification", "Caltech101", "Caltech256", "Country211", "DTD", "FGVCAircraft", "Flowers102", "Food101",
    "GTSRB", "Imagenette", "OxfordIIITPet", "RenderedSST2", "StanfordCars",
)  # fmt: skip
TORCHVISION_WITH_VALIDATION = (
    "CLEVRClassification", "Country211", "DTD", "FGVCAircraft", "Flowers102", "Imagenette", "PCAM", "RenderedSST2",
)  # fmt: skip
_TOO_LARGE = ("INaturalist", "ImageNet", "LSUN", "Places365", "SUN397")  # of torchvision, to keep them decoded


class Variants(NamedTuple):
    """Values of `data.variant` for a data set of torchvision, and the argument that they are of its class."""

    argument: str
    values: tuple[str | int, ...]


TORCHVISION_VARIANTS = {
    "DTD": Variants("partition", tuple(range(1, 11))),
    "EMNIST": Variants("split", ("balanced", "byclass", "bymerge", "digits", "letters", "mnist")),
    "FGVCAircraft": Variants("annotation_level", ("variant", "family", "manufacturer")),
    "Imagenette": Variants("size", ("full", "320px", "160px")),
}


def _known_dataset(name: str) -> str:
    names = sorted((*TORCHVISION_OF_ONE_SIZE, *TORCHVISION_OF_ANY_SIZE), key=str.lower)
    if name in _TOO_LARGE:
        raise ValueError(
            "expected a data set that fits into memory; download it by torchvision, and take data=image_folder "
            "data.root=FOLDER data.storage=stream"
        )
    if name not in names:
        hint = did_you_mean(name.lower(), map(str.lower, names))
        raise ValueError(f"expected a classification data set of torchvision{hint}; one of {', '.join(names)}")
    return name


class Torchvision(FileData):
    """Keys of `data=torchvision`."""

    name: Annotated[str, AfterValidator(_known_dataset)]
    variant: str | int | None
    root: str
    image_size: ImageSize | None


class HuggingFace(FileData):
    """Keys of `data=huggingface`."""

    path: Annotated[str, Field(min_length=1)]
    name: str | None
    revision: str | None
    splits: SplitNames
    image_column: str
    label_column: str
    image_size: ImageSize
    bit_depth: BitDepth | None


class CNN(Section):
    """Keys of `model=cnn`."""

    facts = ("num_classes", "image_shape")
    widths: Annotated[list[Count], Field(min_length=1)]
    hidden: list[Count]


class ResNet18(Section):
    """Keys of `model=resnet18`."""

    facts = ("num_classes", "image_shape")
    width: Count


class WhitenedCNN(Section):
    """Keys of `model=whitened`."""

    facts = ("num_classes", "image_shape")
    widths: Annotated[list[Count], Field(min_length=1)]
    convolutions: Annotated[list[Count], Field(min_length=1)]
    patch: Count
    stride: Count
    whitened: Count | None
    pool_first: bool
    residual: bool
    activation: Literal["gelu", "relu", "silu"]


class NamedModel(Section):
    """Keys of `model=torchvision` and `model=timm`."""

    facts = ("num_classes", "image_shape")
    name: str
    pretrained: bool


class ImageClassifier(Section):
    """Keys of `task=image_classifier`."""

    facts = ("num_classes", "class_counts")

    loss: Loss | None
    label_smoothing: OpenFraction
    class_weights: ClassWeights
    channels_last: bool
    compile: bool
    test_time_flip: bool
    test_time_shift: CountOrZero
    test_time_margin: Annotated[float, Field(gt=0, lt=1)] | None
    metrics: dict[MetricName, dict[str, Any]]
    freeze: list[Annotated[str, AfterValidator(_check_pattern)]]
    freeze_after_epochs: CountOrZero


class SGD(Section):
    """Keys of `optimizer=sgd`; those with a default here are torch's and not in the YAML.

    Attributes:
        dampening: Fraction of the gradient that is left out of the average; 0 with Nesterov momentum.
        maximize: Maximize the loss.
        foreach: Loop over lists of parameters instead of single ones; null for torch's choice.
        fused: One kernel for all parameters; null for torch's choice.
    """

    lr: Positive
    momentum: OpenFraction = 0
    dampening: OpenFraction = 0
    weight_decay: NonNegative = 0
    nesterov: bool = False
    maximize: bool = False
    foreach: bool | None = None
    fused: bool | None = None


class AdamW(Section):
    """Keys of `optimizer=adamw`; those with a default here are torch's and not in the YAML.

    Attributes:
        amsgrad: Divide by the largest average of squared gradients so far.
        maximize: Maximize the loss.
        foreach: Loop over lists of parameters instead of single ones; null for torch's choice.
        capturable: Make steps that a CUDA graph can capture.
        fused: One kernel for all parameters; null for torch's choice.
    """

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
    """Keys of `optimizer=muon`."""

    lr: Positive
    momentum: OpenFraction
    num_iterations: Count
    linear_lr: Positive
    others_lr: Positive
    sgd_momentum: OpenFraction
    weight_decay: NonNegative


class Schedule(Section):
    """Keys of any schedule that are no arguments of its class, but say how it is stepped."""

    interval: Literal["step", "epoch"]


SCHEDULE_KEYS = tuple(Schedule.model_fields)


class WarmupSchedule(Schedule):
    """Keys of `schedule=cosine` and `schedule=linear`."""

    warmup: Fraction
    final: Fraction


class OneCycle(WarmupSchedule):
    """Keys of `schedule=one_cycle`."""

    initial: Fraction


class Plateau(Section):
    """Keys of `schedule=plateau`; those with a default here are torch's and not in the YAML.

    Attributes:
        threshold: Smallest improvement that counts.
        threshold_mode: Unit of the threshold: a fraction of the best value, or the unit of the objective.
        cooldown: Validations after a reduction in which none is counted.
        min_lr: Smallest learning rate.
        eps: Smallest reduction that is made.
        mode: Direction of the objective, which litlab passes.
    """

    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: CountOrZero = 10
    threshold: NonNegative = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: CountOrZero = 0
    min_lr: NonNegative = 0
    eps: NonNegative = 1e-8
    mode: Literal["min", "max"] = "min"


class NoArguments(Section):
    """Class without keys: all its arguments exist only at run time."""


class ImageCallback(Section):
    """Keys of callbacks that show images in TensorBoard."""

    num_images: Count


class EMA(Section):
    """Keys of `callbacks.ema`."""

    decay: OpenFraction
    every_steps: Count


class WandB(Section):
    """Keys of `logger.wandb`."""

    project: Annotated[str, Field(min_length=1)]
    entity: str | None
    offline: bool
    tags: list[str]


class MLflow(Section):
    """Keys of `logger.mlflow`."""

    experiment: Annotated[str, Field(min_length=1)]
    tracking_uri: Annotated[str, Field(min_length=1)] | None
    tags: dict[str, str]


class ModelSummary(Section):
    """Keys of `callbacks.model_summary`."""

    max_depth: Annotated[int, Field(ge=-1)] = 1


def _not_test(metric: str) -> str:
    if split_of(metric) == "test" or metric.lower().startswith("test"):
        raise ValueError("nothing is ever selected on the test split; use a validation metric such as val/accuracy")
    return metric


ValidationMetric = Annotated[str, Field(min_length=1), AfterValidator(_not_test)]


class EarlyStopping(Section):
    """Keys of `callbacks.early_stopping`; those with a default here are Lightning's and not in the YAML.

    Attributes:
        strict: Raise an error if a validation lacks the metric.
        check_finite: Stop when the metric is NaN or infinite.
        stopping_threshold: Stop when the metric is better than this; null for never.
        divergence_threshold: Stop when the metric is worse than this; null for never.
        verbose: Print each improvement.
        log_rank_zero_only: Print on the first rank alone.
    """

    monitor: ValidationMetric
    mode: Literal["max", "min"]
    patience: Count = 3
    min_delta: NonNegative = 0.0
    check_on_train_epoch_end: bool | None = None
    strict: bool = True
    check_finite: bool = True
    stopping_threshold: float | None = None
    divergence_threshold: float | None = None
    verbose: bool = False
    log_rank_zero_only: bool = False


BatchLimit = Fraction | Count | None
Duration = Annotated[str, Field(pattern=r"^\d+:\d\d:\d\d:\d\d$", description="days:hours:minutes:seconds")]
DurationParts = dict[Literal["weeks", "days", "hours", "minutes", "seconds"], CountOrZero]


class Objective(Section):
    """Keys of `objective`."""

    metric: ValidationMetric
    mode: Literal["max", "min"]


class Checkpoint(Section):
    """Keys of `checkpoint`."""

    every_steps: Count | None
    every_minutes: Positive | None


def _check_change_name(name: str) -> str:
    if not is_plain_name(name):
        raise ValueError("expected the name of a change of study.ablate")
    return name


AblationChanges = Annotated[Any, AfterValidator(check_changes), Field(description="mapping of lists or `null`")]
ChangeName = Annotated[str, AfterValidator(_check_change_name)]


class Study(Section):
    """Keys of `study`."""

    name: Name | None
    seeds: Count | None = None
    snapshot: bool = True
    swept: list[str] = Field([])
    ablate: AblationChanges = None
    ablate_pairs: bool = False
    ablation: list[ChangeName] | None = None


def _check_init_from(value: Any) -> Any:
    is_frozen = isinstance(value, dict) and value.keys() == {"path", "sha256"} and all(map(_is_text, value.values()))
    if not (value is None or _is_text(value) or is_frozen):
        raise ValueError("expected the path of a run directory or of a file with weights")
    return value


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


InitFrom = Annotated[  # in a frozen config `path` and `sha256` of the file
    Any, AfterValidator(_check_init_from), Field(description="path or `null`")
]


class Root(Section):
    """Top-level keys. Groups are checked by their targets; some may be left out."""

    format: Literal[2]
    name: Name
    seed: Seed
    threads: Count | None
    objective: Objective | None
    init_from: InitFrom = None
    checkpoint: Checkpoint
    study: Study
    data: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    task: dict[str, Any]
    optimizer: dict[str, Any] | None = None
    schedule: dict[str, Any] | None = None
    callbacks: dict[str, dict[str, Any] | None] | None = None
    logger: dict[str, dict[str, Any] | None] | None = None
    trainer: dict[str, Any]


class Pool(Section):
    """Keys of `hydra/launcher=pool`."""

    backend: Literal["pool"]
    jobs: Count | None
    jobs_per_device: Count
    timeout: Positive | None
    retries: CountOrZero
    dry_run: bool


class Slurm(Section):
    """Keys of `hydra/launcher=slurm`; those that are None are left to the cluster's defaults."""

    backend: Literal["slurm"]
    jobs: Count | None
    partition: str | None
    account: str | None
    qos: str | None
    time: Count | str | None
    cpus: Count
    gpus: CountOrZero | None
    gres: str
    mem: str | None
    constraint: str | None
    exclude: str | None
    options: list[str]
    setup: list[str]
    warning: Count
    poll: Positive
    retries: CountOrZero
    detach: bool
    dry_run: bool


class Ray(Section):
    """Keys of `hydra/launcher=ray`."""

    backend: Literal["ray"]
    address: Annotated[str, Field(min_length=1)] | None
    jobs: Count | None
    cpus: Count
    gpus: CountOrZero | None
    mem: Annotated[str, Field(pattern=r"^[0-9]+[MG]$")] | None
    resources: dict[str, Positive]
    setup: list[str]
    grace: Count
    poll: Positive
    retries: CountOrZero
    detach: bool
    dry_run: bool


class Trainer(Section):
    """Arguments of lightning.pytorch.Trainer, without those in `TRAINER_DECIDED`.

    Attributes:
        gradient_clip_algorithm: Clip the norm of all gradients, or each value; null for the norm.
        min_epochs: Epochs that are trained even if a callback stops the training; null for none.
        min_steps: The same in optimizer steps.
        overfit_batches: Train and validate on this number of batches, or fraction of them; 0 for all.
        benchmark: Let cuDNN choose the fastest algorithms; null for torch's setting.
        detect_anomaly: Name the operation that produced a NaN; slow.
        profiler: Lightning's profiler; its report goes to the run directory.
        sync_batchnorm: Compute the statistics of batch norm over all devices.
        inference_mode: Evaluate under torch.inference_mode instead of torch.no_grad.
        use_distributed_sampler: Let Lightning share the samples of a data module of your own among the devices.
        reload_dataloaders_every_n_epochs: Ask a data module of your own for new loaders after so many epochs; 0 for
            never.
        enable_autolog_hparams: Log the hyperparameters that a module of your own has saved.
    """

    accelerator: str
    devices: Count | Literal["auto", -1] | Annotated[list[CountOrZero], Field(min_length=1)]
    num_nodes: Count
    strategy: str | dict[str, Any]
    precision: Literal[
        "auto", "64-true", "32-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "transformer-engine"
    ]
    max_epochs: Count | Literal[-1] | None
    accumulate_grad_batches: Count
    gradient_clip_val: NonNegative | None
    check_val_every_n_epoch: Count | None
    val_check_interval: Fraction | Count | Duration | DurationParts | None
    log_every_n_steps: Count
    deterministic: bool | Literal["warn"]
    gradient_clip_algorithm: Literal["value", "norm"] | None = None
    max_steps: Count | Literal[-1] | None = None
    min_epochs: Count | None = None
    min_steps: Count | None = None
    max_time: Duration | DurationParts | None = None
    limit_train_batches: BatchLimit = None
    limit_val_batches: BatchLimit = None
    limit_test_batches: BatchLimit = None
    overfit_batches: Fraction | Count = 0.0
    benchmark: bool | None = None
    detect_anomaly: bool = False
    profiler: Literal["simple", "advanced", "pytorch"] | None = None
    sync_batchnorm: bool = False
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    reload_dataloaders_every_n_epochs: CountOrZero = 0
    enable_autolog_hparams: bool = True


# Argument of lightning.pytorch.Trainer that litlab itself passes, or that no run can have -> what to do instead.
TRAINER_DECIDED = {
    "logger": "loggers are in the group logger: +logger.NAME._target_=... adds one, logger.NAME=null removes one",
    "callbacks": "callbacks are in the group callbacks: +callbacks.NAME._target_=... adds one, callbacks.NAME=null "
    "removes one",
    "plugins": "litlab passes its own, for checkpoints and ranks; trainer.precision and trainer.strategy choose others",
    "default_root_dir": "a run has a directory of its own, which hydra.run.dir=... chooses, for a multirun "
    "hydra.sweep.dir=...",
    "enable_checkpointing": "a run needs its checkpoints for the test and to resume; checkpoint.every_steps and "
    "checkpoint.every_minutes say when they are saved",
    "enable_progress_bar": "litlab has a progress bar of its own, and plain lines where the output is no terminal",
    "enable_model_summary": "callbacks=model_summary writes it to run.log",
    "num_sanity_val_steps": "no validation precedes the training; debug=fast shows whether validation works",
    "fast_dev_run": "it saves no checkpoint, which a run needs; use debug=fast",
    "barebones": "it saves and logs nothing, which a run needs; callbacks.NAME=null leaves out a callback",
    "limit_predict_batches": "a run predicts nothing; litlab predict predicts files",
    "model_registry": "a run resumes from the checkpoints in its own directory",
}


# Config group -> class that litlab's configs name in it -> its keys. An untrusted run may name these classes and, of
# others, only those in `litlab.config.trust`.
GROUP_SECTIONS: dict[str, dict[str, type[Section]]] = {
    "data": {
        "litlab.data.cifar10.CIFAR10": CIFAR10,
        "litlab.data.image_folder.ImageFolder": ImageFolder,
        "litlab.data.shapes.Shapes": Shapes,
        "litlab.data.torchvision.Torchvision": Torchvision,
        "litlab.data.huggingface.HuggingFace": HuggingFace,
    },
    "model": {
        "litlab.models.cnn.CNN": CNN,
        "litlab.models.resnet.ResNet18": ResNet18,
        "litlab.models.whitened.WhitenedCNN": WhitenedCNN,
        "litlab.models.torchvision.build": NamedModel,
        "litlab.models.timm.build": NamedModel,
    },
    "task": {"litlab.tasks.image_classifier.ImageClassifier": ImageClassifier},
    "optimizer": {"torch.optim.SGD": SGD, "torch.optim.AdamW": AdamW, "litlab.optim.muon.Muon": Muon},
    "schedule": {
        "litlab.optim.schedules.one_cycle": OneCycle,
        "litlab.optim.schedules.cosine": WarmupSchedule,
        "litlab.optim.schedules.linear": WarmupSchedule,
        "litlab.optim.schedules.constant": NoArguments,
        "torch.optim.lr_scheduler.ReduceLROnPlateau": Plateau,
    },
    "callbacks": {
        "litlab.callbacks.training_log.TrainingLog": NoArguments,
        "litlab.callbacks.images.TrainingImages": ImageCallback,
        "litlab.callbacks.images.WorstMistakes": ImageCallback,
        "litlab.callbacks.confusion_matrix.ConfusionMatrix": NoArguments,
        "litlab.callbacks.class_accuracy.ClassAccuracy": NoArguments,
        "litlab.callbacks.reliability_diagram.ReliabilityDiagram": NoArguments,
        "litlab.callbacks.ema.EMA": EMA,
        "lightning.pytorch.callbacks.EarlyStopping": EarlyStopping,
        "lightning.pytorch.callbacks.ModelSummary": ModelSummary,
    },
    "logger": {
        "litlab.loggers.TensorBoard": NoArguments,
        "litlab.loggers.CSV": NoArguments,
        "litlab.loggers.WandB": WandB,
        "litlab.loggers.MLflow": MLflow,
    },
    "trainer": {"lightning.pytorch.Trainer": Trainer},
}
# Those of them that need a package which is not a dependency of litlab -> that package.
OPTIONAL_PACKAGES = {
    "litlab.models.timm.build": "timm",
    "litlab.data.huggingface.HuggingFace": "datasets",
    "litlab.loggers.WandB": "wandb",
    "litlab.loggers.MLflow": "mlflow",
}
SECTIONS: dict[str, type[Section]] = {
    target: section for sections in GROUP_SECTIONS.values() for target, section in sections.items()
}
# The same with the classes that are only inherited from.
BASE_SECTIONS: dict[str, type[Section]] = SECTIONS | {"litlab.data.module.ImageDataModule": ImageData}

LAUNCHERS: dict[str, type[Section]] = {"pool": Pool, "slurm": Slurm, "ray": Ray}  # backend -> keys of hydra.launcher
