"""Values that a Trainer logs, with their names in litlab's files, and units and directions of the metrics.

A LightningModule may log under any name. litlab's files have one name for each metric of each split:

- The split comes from the loop that logs. A name without it gets it as a prefix, such as `train/loss` for a `loss` of
  the training step. Names without a split belong to the validation.
- Lightning splits a value that is logged with `on_step` and `on_epoch` into `X_step` and `X_epoch`. The value of the
  epoch is recorded as `X`, or as `X_epoch` if the objective is called like that.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.trainer.states import RunningStage
from torchmetrics import Metric

from litlab.runs.metrics import Metric as MetricInfo
from litlab.runs.metrics import Split, has_no_split, split_of
from litlab.tasks.metrics import metric_info

_SPLITS: dict[RunningStage, Split] = {
    RunningStage.TRAINING: "train",
    RunningStage.VALIDATING: "val",
    RunningStage.TESTING: "test",
}
_OF_EPOCH = re.compile(r"_epoch(/dataloader_idx_\d+)?$")


def recorded_names(trainer: Trainer, names: Iterable[str], objective: str | None) -> dict[str, str]:
    """Map the names of values that are being logged to those under which litlab records them.

    Args:
        trainer: Trainer in the loop that logs.
        names: Names as Lightning passes them to loggers and callbacks.
        objective: Metric of the objective, whose name is kept.

    Returns:
        Recorded name by logged name.
    """
    split = _SPLITS.get(trainer.state.stage) if trainer.state.stage is not None else None
    renamed: dict[str, str] = {}
    if trainer._results is not None:
        for plain, of_step, of_epoch in _forked_names(trainer._results):
            old, new = (plain, of_epoch) if objective and _OF_EPOCH.search(objective) else (of_epoch, plain)
            renamed |= {old: new} if of_step != of_epoch else {}
    recorded = {}
    for name in names:
        new = renamed.get(name, name)
        is_objective = new == objective and (split == "val" or (split == "train" and not trainer.enable_validation))
        recorded[name] = new if is_objective else _with_split(new, split)
    return recorded


def logged_values(trainer: Trainer, objective: str | None = None) -> dict[str, float]:
    """Return the values of the validation or test that has just ended, without older ones of the training.

    Args:
        trainer: Trainer in a hook at the end of the validation or test.
        objective: Metric of the objective.

    Returns:
        Value by recorded name.
    """
    results = trainer._results
    values: dict[str, Any] = {}
    assert results is not None, "only a loop has results"
    current = results.dataloader_idx
    for index in dict.fromkeys(result.meta.dataloader_idx for result in results.values()):  # None for a single loader
        results.dataloader_idx = index  # Lightning shows one loader at a time
        values |= trainer._logger_connector.metrics["callback"]
    results.dataloader_idx = current
    values.pop("step", None)  # Lightning's axis
    return {new: float(values[name]) for name, new in recorded_names(trainer, values, objective).items()}


def logged_metrics(trainer: Trainer) -> dict[str, MetricInfo]:
    """Collect unit, direction and bounds of all metrics that a Trainer's module and callbacks describe.

    They are known for modules and callbacks with a method `describe_metrics() -> list[Metric]`, and for any
    torchmetrics metric that a module logs as an object by `self.log`.

    Returns:
        Metric by recorded name, for as many names as are known.
    """
    infos: dict[str, MetricInfo] = {}
    for source in (trainer.lightning_module, *trainer.callbacks):  # type: ignore[attr-defined]
        if describe := getattr(source, "describe_metrics", None):
            infos |= {info.name: info for info in describe()}
    epoch_loop = trainer.fit_loop.epoch_loop
    loops: tuple[tuple[Any, Split], ...] = (
        (epoch_loop, "train"),
        (epoch_loop.val_loop, "val"),
        (trainer.validate_loop, "val"),
        (trainer.test_loop, "test"),
    )
    for loop, split in loops:
        for result, names in zip(loop._results.values(), _forked_names(loop._results), strict=True):
            if isinstance(result.value, Metric):
                info = metric_info("", result.value)
                for name in {*names, *(_with_split(name, split) for name in names)}:
                    infos[name] = replace(info, name=name)
    return infos


class ValueRecorder(Callback):
    """Keep the values of the last validation and of the test, by recorded name.

    Args:
        objective: Metric of the objective; None without one.

    Attributes:
        validated: Values of the validation.
        tested: Values of the test.
    """

    def __init__(self, objective: str | None) -> None:
        self._objective = objective
        self.validated: dict[str, float] = {}
        self.tested: dict[str, float] = {}

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the values."""
        self.validated = logged_values(trainer, self._objective)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the values."""
        self.tested = logged_values(trainer, self._objective)


def _forked_names(results: _ResultCollection) -> Iterator[tuple[str, str, str]]:
    """Yield the name of each value, and Lightning's names of it by step and by epoch, with the number of its loader."""
    for result in results.values():
        plain, of_step = results._forked_name(result, on_step=True)
        yield plain, of_step, results._forked_name(result, on_step=False)[1]


def _with_split(name: str, split: Split | None) -> str:
    """Put the split before a name without one; validation is the split of names without one."""
    named = split_of(name)
    if split is None or has_no_split(name) or named == split or (named is None and split == "val"):
        return name
    return f"{split}/{name}"
