"""Loggers of a run: metrics.csv, which every run has, and TensorBoard."""

from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, MetricsWriter
from litlab.runs.redact import redact_all
from litlab.tasks.metrics import logged_metrics


class MetricsLogger(Logger):
    """Append all logged values to metrics.csv, and their units and directions to metrics.json, on rank zero.

    The step of a row is the number of optimizer steps taken so far. Lightning's own count, which it uses for values
    that a LightningModule logs by `self.log`, is one lower during training, and differs with several optimizers.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run
        self._trainer: Trainer | None = None
        self._writer: MetricsWriter | None = None
        self._names: set[str] = set()  # logged so far

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "metrics"

    @property
    def version(self) -> str:
        """Empty: a run has one metrics.csv."""
        return ""

    @rank_zero_only
    def log_graph(self, model: nn.Module, input_array: Tensor | None = None) -> None:
        """Take the Trainer from the module; Lightning calls this before a fit or test starts."""
        if isinstance(model, LightningModule):
            self._trainer = model.trainer

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Append a row for each value.

        Args:
            metrics: Value by name; `epoch` is a column of the other rows.
            step: Step to write without a Trainer; with one, its number of optimizer steps is written.
        """
        values = dict(metrics)
        epoch = int(values.pop("epoch", self._trainer.current_epoch if self._trainer else 0))
        if self._trainer is not None:
            step = self._trainer.global_step
        self._writer = self._writer or MetricsWriter(self._run.metrics)
        self._writer.append(epoch, step or 0, values, self._infos(values))

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the config is in config.yaml."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _infos(self, values: dict[str, float]) -> dict[str, Metric]:
        """Find unit, direction and bounds of the metrics that are logged for the first time."""
        if self._trainer is None or values.keys() <= self._names:
            return {}
        new, self._names = values.keys() - self._names, self._names | values.keys()
        return {name: info for name, info in logged_metrics(self._trainer).items() if name in new}


class TensorBoard(TensorBoardLogger):
    """Event files in the run directory itself, and nothing else: the config is in config.yaml."""

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, metrics: dict[str, Any] | None = None, step: int | None = None
    ) -> None:
        """Keep the hyperparameters that a user's own class saves, without the secrets among them.

        Metrics are logged like any others: Lightning's session for the HParams page would hide litlab's, and marks
        every run as successful.
        """
        plain = vars(params) if isinstance(params, Namespace) else dict(params)
        super().log_hyperparams(redact_all(plain))
        if metrics:
            self.log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        """Flush the event file."""
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the file open after a fit, for the test: closed, it would be followed by a second one."""
        if status == "success":
            self.save()
        else:
            super().finalize(status)

    @rank_zero_only
    def close(self) -> None:
        """Close the event file after the last value."""
        super().finalize("closed")


def log_config(loggers: Iterable[Logger], config: str) -> None:
    """Write the YAML text of a config to every logger that takes text."""
    indented = "".join(f"    {line}\n" for line in config.splitlines())  # a code block in Markdown
    for logger in loggers:
        if add_text := getattr(getattr(logger, "experiment", None), "add_text", None):
            add_text("config", indented, 0)
