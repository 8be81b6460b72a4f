"""metrics.csv: one row a value, appended in whole lines."""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_NOT_VALIDATION = ("train", "throughput", "lr", "test")
HEADER = ("epoch", "step", "metric", "value")


@dataclass(frozen=True)
class Row:
    """A value of a metric after `step` optimizer steps, in `epoch` (counted from 0)."""

    epoch: int
    step: int
    metric: str
    value: float


class MetricsWriter:
    """Appends rows; a reader at any moment sees whole lines, but perhaps a torn last one."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)  # what a full disk refuses is not tried again behind one's back
        if self._file.tell() == 0:
            self._write([HEADER])

    def append(self, epoch: int, step: int, values: Mapping[str, float]) -> None:
        """Add one row for each value, in one write."""
        self._write([(epoch, step, metric, repr(float(value))) for metric, value in values.items()])

    def close(self) -> None:
        self._file.close()

    def _write(self, rows: list[tuple[object, ...]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        rest = text.getvalue().encode()
        while rest:  # a disk that fills up takes a part of it first
            rest = rest[self._file.write(rest) :]


def read_metrics(path: Path) -> list[Row]:
    """Read metrics.csv; a torn last line is left out.

    Raises:
        ValueError: if the header or a line before the last is not ours.
    """
    whole = path.read_bytes().rpartition(b"\n")[0]  # cut before decoding: it may be torn within a character
    lines = whole.decode().split("\n")
    if tuple(lines[0].split(",")) != HEADER:
        raise ValueError(f"{path}: expected the header {','.join(HEADER)}")
    return [Row(int(epoch), int(step), metric, float(value)) for epoch, step, metric, value in csv.reader(lines[1:])]


def at_step(rows: list[Row], step: int, split: str) -> dict[str, float]:
    """The values of a split (`val` of `val/loss`) that were logged after so many optimizer steps."""
    return {row.metric: row.value for row in rows if row.step == step and row.metric.partition("/")[0] == split}


def last_values(rows: list[Row]) -> dict[str, float]:
    """The last value of each metric that is not of the training itself nor of the test."""
    values = {row.metric: row.value for row in rows}
    return {name: value for name, value in values.items() if name.partition("/")[0] not in _NOT_VALIDATION}
