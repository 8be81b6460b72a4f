"""The metrics of a run: their rows in metrics.csv, their units and directions in metrics.json.

metrics.csv has one row for each value, appended in whole lines. Each epoch is counted from 0, each step is the number
of optimizer steps before the value.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_number, open_regular, write_json

HEADER = ("epoch", "step", "metric", "value")
MAX_COUNT = 1 << 53  # steps or epochs; beyond it a float is not exact
Mode = Literal["max", "min"]
Split = Literal["train", "val", "test"]

_LONGEST_LINE = 1000  # bytes; a row of litlab's has under a hundred
_TAIL = 256  # bytes before the offset that are compared to detect a truncated file
_PREFIX = re.compile(r"(train|training|val|valid|validation|test|testing)[/_.\- ](?=.)", re.IGNORECASE)
_SUFFIX = re.compile(r"(?<=.)[/_.\- ](train|val|valid|validation|test)$", re.IGNORECASE)
_SPLIT_NAMES = {"val": "validation", "train": "training", "test": "test"}
_OF_STEP = re.compile(r"_step(/dataloader_idx_\d+)?$")
_NO_SPLIT = re.compile(r"(throughput|lr)(?![A-Za-z0-9_])")  # `lr-SGD` by Lightning's LearningRateMonitor


@dataclass(frozen=True)
class Metric:
    """A quantity that a run logs.

    Attributes:
        name: Name under which it is logged, such as `val/accuracy`.
        unit: Unit of the values; `%` for a fraction of 1 that is displayed in percent.
        mode: Direction of improvement; None if unknown.
        bounds: Smallest and largest possible value, infinite where there is no bound; None if unknown.
    """

    name: str
    unit: str = ""
    mode: Mode | None = None
    bounds: tuple[float, float] | None = None

    @property
    def split(self) -> Split | None:
        """Data split that it is computed on, by the prefix or else the suffix of its name; None if there is none."""
        return split_of(self.name)

    @property
    def quantity(self) -> str:
        """Name without the split: `accuracy`."""
        match = _PREFIX.match(self.name)
        return self.name[match.end() :] if match is not None else _SUFFIX.sub("", self.name)

    @property
    def label(self) -> str:
        """Name for titles and sentences: `validation accuracy`."""
        quantity = self.quantity.replace("_", " ").replace("/", " ")
        return quantity if self.split is None else f"{_SPLIT_NAMES[self.split]} {quantity}"

    @property
    def scale(self) -> float:
        """Factor from the logged to the displayed value: 100 for percent."""
        return 100.0 if self.unit == "%" else 1.0

    def format(self, value: float) -> str:
        """Format a value for people: `84.50 %`, `0.4208`."""
        if self.unit == "%":
            return f"{100 * value:.2f} %"
        size = abs(value)
        digits = ",.0f" if 100 <= size < 1e9 else ".4f" if 1e-3 <= size < 100 else ".4g"
        number = format(value, digits)
        return f"{number} {self.unit}".rstrip()


@lru_cache(maxsize=1024)
def split_of(name: str) -> Split | None:
    """Return the data split that a metric is computed on: `val` for `val/loss`, `valid_f1` and `loss/val`."""
    match = _PREFIX.match(name) or _SUFFIX.search(name)
    if match is None:
        return None
    prefix = match[1].lower()
    return "train" if prefix.startswith("train") else "test" if prefix.startswith("test") else "val"


@lru_cache(maxsize=1024)
def is_validation(name: str) -> bool:
    """Tell metrics of a validation, or without a known split, from those of training, test, throughput and rates."""
    return split_of(name) not in ("train", "test") and not has_no_split(name)


def has_no_split(name: str) -> bool:
    """Tell throughput and learning rates, which are measured on no split."""
    return _NO_SPLIT.match(name) is not None


class Row(NamedTuple):
    """A value of a metric after `step` optimizer steps, in `epoch` (counted from 0)."""

    epoch: int
    step: int
    metric: str
    value: float


class MetricsWriter:
    """Append rows to metrics.csv in whole lines and describe their metrics in metrics.json.

    A reader sees whole lines at any moment, except perhaps a torn last one.
    """

    def __init__(self, path: Path) -> None:
        """Open the file for appending.

        Args:
            path: metrics.csv of a run. It may hold rows; a resume truncates it to the checkpoint first.
        """
        self._file = path.open("ab", buffering=0)  # unbuffered: bytes that a full disk refuses are not retried later
        run = RunDirectory(path.parent)
        self._table_file, self._table = run.metric_table, read_metric_table(run)
        self._is_table_synced = True
        if self._file.tell() == 0:
            self._write([HEADER])

    def append(
        self, epoch: int, step: int, values: Mapping[str, float], metrics: Mapping[str, Metric] | None = None
    ) -> None:
        """Add one row for each value, in one write.

        Args:
            epoch: Epoch, counted from 0.
            step: Number of optimizer steps so far.
            values: Value of each metric by name.
            metrics: Metrics by name, for those whose unit, mode or bounds are known. They go into metrics.json before
                the first row does, so that a reader of the row finds them.
        """
        metrics = metrics or {}
        if any(self._table.get(name) != metric for name, metric in metrics.items()):
            self._table |= metrics
            # Not synced here: a table that a power cut takes is written again when the run is resumed.
            write_json(self._table_file, {name: _to_json(metric) for name, metric in self._table.items()}, sync=False)
            self._is_table_synced = False
        self._write([(epoch, step, metric, repr(float(value))) for metric, value in values.items()])

    def close(self) -> None:
        """Close the file, and sync metrics.json if it has changed."""
        self._file.close()
        if not self._is_table_synced:
            with self._table_file.open("rb") as file:
                os.fsync(file.fileno())
            self._is_table_synced = True

    def _write(self, rows: list[tuple[object, ...]]) -> None:
        remaining = _to_csv(rows).encode()
        while remaining:  # a disk that fills up takes a part of it first
            remaining = remaining[self._file.write(remaining) :]


class MetricTable(dict[str, Metric]):
    """Metrics by name; a name without an entry is a metric without unit, direction or bounds."""

    def __missing__(self, name: str) -> Metric:
        return Metric(name)


def read_metric_table(run: RunDirectory) -> MetricTable:
    """Read metrics.json; entries that are malformed are left out or in part unknown, as is a file that is damaged."""
    try:
        with open_regular(run.metric_table) as file:
            content = json.loads(file.read())
    except (OSError, ValueError, RecursionError):
        return MetricTable()
    entries = content.items() if isinstance(content, dict) else ()
    return MetricTable({name: _from_json(name, entry) for name, entry in entries if isinstance(entry, dict)})


class MetricsReader:
    """Read the rows that were added to a metrics.csv since the last read.

    Lines that are no rows are left out, a torn last line until it is complete.

    Attributes:
        num_restarts: Number of times that the file was found truncated. The read that found it began at the start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.num_restarts = 0
        self._offset = 0
        self._tail = b""  # bytes before the offset; other bytes there mean that the file was truncated and grew again

    def read(self) -> list[Row]:
        """Return the new rows."""
        return [row for line in self._new_lines().splitlines() if (row := _parse(line)) is not None]

    def _new_lines(self) -> bytes:
        try:
            with open_regular(self._path) as file:
                file.seek(self._offset - len(self._tail))
                content = file.read()
        except FileNotFoundError:
            content = b""
        if not content.startswith(self._tail):
            self.num_restarts += 1
            self._offset, self._tail = 0, b""
            return self._new_lines()
        whole = content[: content.rfind(b"\n") + 1]
        new = whole[len(self._tail) :]
        self._offset += len(new)
        self._tail = whole[-_TAIL:]
        return new


def iterate_rows(path: Path, metrics: Collection[str]) -> Iterator[Row]:
    """Iterate over the rows of some metrics in a metrics.csv of any size, in bounded memory.

    Lines that are no rows are left out; a file that cannot be read has no rows.
    """
    names = {metric.encode() for metric in metrics}
    are_quoted = any(_to_csv([[metric]]) != f"{metric}\n" for metric in metrics)
    try:
        with open_regular(path) as file:
            while line := file.readline(_LONGEST_LINE):
                cells = line.split(b",", 4)
                is_candidate = (len(cells) == 4 and cells[2] in names) or (are_quoted and b'"' in line)
                if is_candidate and line.endswith(b"\n"):
                    row = _parse(line)
                    if row is not None and row.metric in metrics:
                        yield row
    except OSError:
        return


def read_metrics(path: Path) -> list[Row]:
    """Read metrics.csv; a torn last line is left out.

    Raises:
        OSError: If it does not exist or is no regular file.
        ValueError: If the header or a line before the last is malformed.
    """
    with open_regular(path) as file:
        whole = file.read().rpartition(b"\n")[0]  # cut before decoding: it may be torn within a character
    lines = whole.decode().split("\n")
    if tuple(lines[0].split(",")) != HEADER:
        raise ValueError(f"{path}: expected the header {','.join(HEADER)}")
    return [Row(int(epoch), int(step), metric, float(value)) for epoch, step, metric, value in csv.reader(lines[1:])]


def last_values(rows: Sequence[Row]) -> dict[str, float]:
    """Return the last value of each metric except those of training, test, throughput and single batches.

    A LightningModule that logs `X` by step and by epoch has rows of `X_step`, too.
    """
    values = {row.metric: row.value for row in rows if is_validation(row.metric)}
    return {name: value for name, value in values.items() if not _is_of_batch(name, values)}


def _is_of_batch(name: str, names: Collection[str]) -> bool:
    match = _OF_STEP.search(name)
    start, end = (name[: match.start()], match[1] or "") if match is not None else ("", "")
    return match is not None and (f"{start}{end}" in names or f"{start}_epoch{end}" in names)


def _parse(line: bytes) -> Row | None:
    """Return None for the header, and for anything that no `MetricsWriter` has written."""
    try:
        text = line.decode().rstrip("\n")
        epoch, step, metric, value = next(csv.reader([text])) if '"' in text else text.split(",")
        row = Row(int(epoch), int(step), metric, float(value))
    except (ValueError, csv.Error, StopIteration):
        return None
    return row if 0 <= row.epoch < MAX_COUNT and 0 <= row.step < MAX_COUNT else None


def _to_csv(rows: Iterable[Iterable[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _to_json(metric: Metric) -> dict[str, Any]:
    bounds = metric.bounds and [bound if math.isfinite(bound) else None for bound in metric.bounds]
    return {"unit": metric.unit, "mode": metric.mode, "bounds": bounds}


def _from_json(name: str, entry: dict[str, Any]) -> Metric:
    unit, mode = entry.get("unit"), entry.get("mode")
    return Metric(
        name,
        unit=unit if isinstance(unit, str) and len(unit) <= 20 and unit.isprintable() else "",
        mode=mode if mode in ("max", "min") else None,
        bounds=_bounds(entry.get("bounds")),
    )


def _bounds(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    lower = -math.inf if value[0] is None else as_number(value[0])
    upper = math.inf if value[1] is None else as_number(value[1])
    return (lower, upper) if lower is not None and upper is not None and lower < upper else None
