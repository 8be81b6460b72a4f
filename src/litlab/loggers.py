"""Where values go: metrics.csv, which every run has, and TensorBoard."""

from argparse import Namespace
from collections.abc import Iterable
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import MetricsWriter
from litlab.runs.redact import redact_all


class MetricsLogger(Logger):
    """Appends whatever is logged to metrics.csv, on rank zero."""

    def __init__(self, run: RunDirectory) -> None:
        super().__init__()
        self._run = run
        self._writer: MetricsWriter | None = None

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values = dict(metrics)
        epoch = int(values.pop("epoch", 0))
        self._writer = self._writer or MetricsWriter(self._run.metrics)
        self._writer.append(epoch, step or 0, values)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """The config stands in config.yaml already."""

    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class TensorBoard(TensorBoardLogger):
    """Event files right in the run directory, and nothing else: the config stands in config.yaml."""

    def __init__(self, *, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="", default_hp_metric=False)

    @rank_zero_only
    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, metrics: dict[str, Any] | None = None, step: int | None = None
    ) -> None:
        """What a user's own class keeps of its arguments, without the secrets among them.

        Metrics are logged like any others: Lightning's session for the HParams page would hide litlab's, and says of
        every run that it succeeded.
        """
        plain = vars(params) if isinstance(params, Namespace) else dict(params)
        super().log_hyperparams(redact_all(plain))
        if metrics:
            self.log_metrics(metrics, step)

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """After a fit, the file stays open for the test: closed, it would be followed by a second one."""
        if status == "success":
            self.save()
        else:
            super().finalize(status)

    @rank_zero_only
    def close(self) -> None:
        """After the last value."""
        super().finalize("closed")


def log_config(loggers: Iterable[Logger], config: str) -> None:
    """Write the YAML text of a config to every logger that takes text."""
    indented = "".join(f"    {line}\n" for line in config.splitlines())  # a code block in Markdown
    for logger in loggers:
        if add_text := getattr(getattr(logger, "experiment", None), "add_text", None):
            add_text("config", indented, 0)
