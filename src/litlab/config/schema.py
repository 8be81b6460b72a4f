"""Types and ranges of every key, in one torch-free place; tests/config/test_schema.py ties it to the constructors.

A section whose `_target_` stands in SECTIONS is checked against its model. Every other target is foreign: `foreign.py`
imports it, in a process of its own, and checks its arguments against its signature.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from litlab.config import parts
from litlab.config.section import Count, CountOrZero, Fraction, Name, NonNegative, Positive, Section, Seed


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

    format: Literal[1]
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


# What validation measures under litlab's own task, and an objective can be.
VALIDATION_METRICS = ("val/accuracy", "val/loss", "val/top5_accuracy", "val/calibration_error")

SECTIONS: dict[str, type[Section]] = {
    "litlab.data.cifar10.CIFAR10": parts.CIFAR10,
    "litlab.data.image_folder.ImageFolder": parts.ImageFolder,
    "litlab.data.shapes.Shapes": parts.Shapes,
    "litlab.models.cnn.CNN": parts.CNN,
    "litlab.models.resnet.ResNet18": parts.ResNet18,
    "litlab.models.whitened.WhitenedCNN": parts.WhitenedCNN,
    "litlab.models.torchvision.build": parts.TorchvisionModel,
    "litlab.task.ImageClassifier": parts.ImageClassifier,
    "litlab.optim.one_cycle": parts.OneCycle,
    "litlab.optim.cosine": parts.Cosine,
    "litlab.optim.linear": parts.Linear,
    "litlab.optim.constant": parts.Nothing,
    "torch.optim.SGD": parts.SGD,
    "torch.optim.AdamW": parts.AdamW,
    "litlab.muon.Muon": parts.Muon,
    "litlab.loggers.TensorBoard": parts.Nothing,
    "litlab.callbacks.throughput.TrainingLog": parts.Nothing,
    "litlab.callbacks.pictures.TrainingImages": parts.Pictures,
    "litlab.callbacks.pictures.WorstMistakes": parts.Pictures,
    "litlab.callbacks.confusion.ConfusionMatrix": parts.Nothing,
    "litlab.callbacks.ema.EMA": parts.EMA,
    "lightning.pytorch.Trainer": Trainer,
}
