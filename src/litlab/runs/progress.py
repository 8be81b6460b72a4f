"""How far a run is, read from its growing metrics.csv, as anybody can from outside."""

from dataclasses import dataclass
from typing import Any

from litlab.runs.directory import RunDirectory, open_regular
from litlab.runs.metrics import Row

Config = dict[str, Any]
_MOST = 1 << 53  # steps or epochs; more than that, and a float is not exact
_REMEMBERED = 256  # bytes before the place that was read up to; others there mean that the file was cut back and grew


@dataclass(frozen=True)
class Progress:
    """
    Attributes:
        epoch: the one that the run is in, counted from 1; None before the first row.
        step: optimizer steps so far.
        num_epochs: how many there will be; None where nothing in the config limits them.
        fraction: of the training that is done, 0 to 1; None where its length is not known.
        objective: the last value of the metric that is the objective; None before the first.
    """

    epoch: int | None = None
    step: int = 0
    num_epochs: int | None = None
    fraction: float | None = None
    objective: float | None = None


class Follower:
    """Reads what is new in the metrics.csv of a run, which a resume cuts back.

    Attributes:
        num_restarts: how often it was cut back; `read` has then begun at the start again.
        progress: according to the rows read so far.
    """

    def __init__(self, run: RunDirectory, config: Config) -> None:
        """`config`: the frozen one; of a stranger's, nothing is relied on."""
        self._file = run.metrics
        trainer, objective = _mapping(config.get("trainer")), _mapping(config.get("objective"))
        self._num_epochs, self._num_steps = _limit(trainer.get("max_epochs")), _limit(trainer.get("max_steps"))
        self._metric = objective.get("metric")
        self.num_restarts = 0
        self._start_over()

    def _start_over(self) -> None:
        self._offset = 0
        self._before = b""
        self._steps_per_epoch = 0.0
        self.progress = Progress(num_epochs=self._num_epochs, fraction=0.0 if self._is_limited else None)

    def read(self) -> list[Row]:
        """The rows that are new, in whole lines; lines that are no rows are left out."""
        new = self._new_lines()
        rows = [row for line in new.splitlines() if (row := _row(line)) is not None]
        for row in rows:
            self._take(row)
        return rows

    def _new_lines(self) -> bytes:
        try:
            with open_regular(self._file) as file:
                file.seek(self._offset - len(self._before))
                found = file.read()
        except FileNotFoundError:
            found = b""
        if not found.startswith(self._before):
            self.num_restarts += 1
            self._start_over()
            return self._new_lines()
        whole = found[: found.rfind(b"\n") + 1]
        new = whole[len(self._before) :]
        self._offset += len(new)
        self._before = whole[-_REMEMBERED:]
        return new

    def _take(self, row: Row) -> None:
        split = row.metric.partition("/")[0]
        if split == "test":  # its rows are those of the checkpoint that was tested
            return
        if split not in ("train", "lr", "throughput"):  # a validation, usually at the end of an epoch
            self._steps_per_epoch = max(self._steps_per_epoch, row.step / (row.epoch + 1))
        now = self.progress
        self.progress = Progress(
            epoch=row.epoch + 1,
            step=row.step,
            num_epochs=self._num_epochs,
            fraction=self._fraction(row),
            objective=row.value if row.metric == self._metric else now.objective,
        )

    @property
    def _is_limited(self) -> bool:
        return self._num_epochs is not None or self._num_steps is not None

    def _fraction(self, row: Row) -> float | None:
        """By whatever limit is reached first; within an epoch by the length of those before."""
        fractions = []
        if self._num_steps:
            fractions.append(row.step / self._num_steps)
        if self._num_epochs:
            in_epoch = row.step / self._steps_per_epoch - row.epoch if self._steps_per_epoch else 0.0
            fractions.append((row.epoch + min(max(in_epoch, 0.0), 1.0)) / self._num_epochs)
        return min(max(fractions), 1.0) if fractions else None


def _row(line: bytes) -> Row | None:
    """None for the header, and for what no run of ours has written."""
    try:
        epoch, step, metric, value = line.decode().split(",")
        row = Row(int(epoch), int(step), metric, float(value))
    except ValueError:
        return None
    return row if 0 <= row.epoch < _MOST and 0 <= row.step < _MOST else None


def _limit(value: Any) -> int | None:
    """A limit of the Trainer; null and -1 are none."""
    return value if isinstance(value, int) and 0 < value < _MOST else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
