"""The progress of a run, estimated from its growing metrics.csv."""

from dataclasses import dataclass
from typing import Any

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import MetricsReader, Row, is_validation, split_of

Config = dict[str, Any]
_MAX_COUNT = 1 << 53  # steps or epochs; beyond it a float is not exact


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        epoch: Current epoch, counted from 1; None before the first row.
        step: Optimizer steps so far.
        num_epochs: Number of epochs in total; None where nothing in the config limits them.
        fraction: Completed fraction of the training, 0 to 1; None where its length is not known.
        objective: Last value of the objective; None before the first.
    """

    epoch: int | None = None
    step: int = 0
    num_epochs: int | None = None
    fraction: float | None = None
    objective: float | None = None


class ProgressReader:
    """Follow the progress of a run.

    Attributes:
        progress: Progress according to the rows read so far.
    """

    def __init__(self, run: RunDirectory, config: Config) -> None:
        """Prepare to read; nothing is read yet.

        Args:
            run: Directory of the run.
            config: Frozen config, which may be untrusted.
        """
        trainer, objective = _mapping(config.get("trainer")), _mapping(config.get("objective"))
        self._reader = MetricsReader(run.metrics)
        self._num_epochs, self._num_steps = _limit(trainer.get("max_epochs")), _limit(trainer.get("max_steps"))
        self._metric = objective.get("metric")
        self._start_over()

    @property
    def num_restarts(self) -> int:
        """Number of times that a resume truncated metrics.csv; `read` then started over."""
        return self._reader.num_restarts

    def _start_over(self) -> None:
        is_limited = self._num_epochs is not None or self._num_steps is not None
        self._steps_per_epoch = 0.0
        self.progress = Progress(num_epochs=self._num_epochs, fraction=0.0 if is_limited else None)

    def read(self) -> list[Row]:
        """Read and return the new rows, and update the progress."""
        num_restarts = self.num_restarts
        rows = self._reader.read()
        if self.num_restarts > num_restarts:
            self._start_over()
        for row in rows:
            self._update(row)
        return rows

    def _update(self, row: Row) -> None:
        if split_of(row.metric) == "test":  # logged at the step of the checkpoint that was tested
            return
        if is_validation(row.metric):  # usually at the end of an epoch
            self._steps_per_epoch = max(self._steps_per_epoch, row.step / (row.epoch + 1))
        self.progress = Progress(
            epoch=row.epoch + 1,
            step=row.step,
            num_epochs=self._num_epochs,
            fraction=self._fraction(row),
            objective=row.value if row.metric == self._metric else self.progress.objective,
        )

    def _fraction(self, row: Row) -> float | None:
        """Compute the fraction by the limit that is reached first; within an epoch by the length of earlier ones."""
        fractions = []
        if self._num_steps:
            fractions.append(row.step / self._num_steps)
        if self._num_epochs:
            in_epoch = row.step / self._steps_per_epoch - row.epoch if self._steps_per_epoch else 0.0
            fractions.append((row.epoch + min(max(in_epoch, 0.0), 1.0)) / self._num_epochs)
        return min(max(fractions), 1.0) if fractions else None


def _limit(value: Any) -> int | None:
    """Return a limit of the Trainer; null and -1 mean none."""
    return value if isinstance(value, int) and 0 < value < _MAX_COUNT else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
