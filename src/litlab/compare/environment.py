"""Environment of runs by their provenance.json files: each value once, with the number of runs that have it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from litlab.compare.conclusion import on_one_line
from litlab.compare.model import Run
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory

MAX_RUNS = 200  # that are read
MAX_VALUES = 8  # of one fact
MAX_PACKAGES = 500
_MAX_FILE = 1 << 26  # bytes; the file holds some thousand, and the code that was not committed
MAIN_PACKAGES = ("litlab", "torch", "lightning", "torchmetrics", "torchvision", "numpy", "hydra-core", "optuna")
_MACHINE_FACTS = ("device", "processor", "cores", "ranks", "threads", "precision", "system", "python")


@dataclass(frozen=True)
class Environment:
    """Environment of several runs.

    Attributes:
        num_read: Number of runs whose provenance.json was read; at most MAX_RUNS are tried.
        facts: Name -> values, the most frequent first.
        packages: Versions of the packages that determine results, and of those that differ between runs.
        other_packages: `name version` of all others.
        dates: Dates on which the runs were started.
    """

    num_read: int
    facts: Mapping[str, tuple[str, ...]]
    packages: Mapping[str, tuple[str, ...]]
    other_packages: tuple[str, ...]
    dates: tuple[date, ...]


def environment_of(runs: Sequence[Run]) -> Environment:
    """Read the environment of runs; files that are missing, damaged or too large are left out."""
    records = [record for run in runs[:MAX_RUNS] if (record := _read_record(run))]
    machines = [_mapping(machine) for _, machine, _ in records]
    facts = {"commit": _values(commit for commit, _, _ in records)}
    facts |= {name: _values(machine.get(name) for machine in machines) for name in _MACHINE_FACTS}
    versions: dict[str, Counter[str]] = {}
    for machine in machines:
        for package, version in list(_mapping(machine.get("packages")).items())[:MAX_PACKAGES]:
            versions.setdefault(on_one_line(package), Counter())[_text(version)] += 1
    shown = {name for name, counts in versions.items() if len(counts) > 1} | set(MAIN_PACKAGES)
    order = [*MAIN_PACKAGES, *sorted(versions.keys() - set(MAIN_PACKAGES), key=str.lower)][:MAX_PACKAGES]
    return Environment(
        num_read=len(records),
        facts={name: values for name, values in facts.items() if values},
        packages={name: _counted(versions[name]) for name in order if name in versions and name in shown},
        other_packages=tuple(f"{name} {next(iter(versions[name]))}" for name in order if name not in shown),
        dates=tuple(started for _, _, started in records if started),
    )


def _read_record(run: Run) -> tuple[str | None, Any, date | None] | None:
    """Return commit, machine and date only: the file may hold megabytes of code."""
    directory = RunDirectory(run.path)
    try:
        if directory.provenance.stat().st_size > _MAX_FILE:
            return None
        record = _mapping(directory.read_json(directory.provenance))
    except (UserError, OSError):
        return None
    return (_commit(record), record.get("machine"), _date(record.get("started"))) if record else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _date(value: Any) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def _commit(record: Mapping[str, Any]) -> str | None:
    code = _mapping(record.get("code"))
    if not isinstance(code.get("commit"), str):
        return None
    is_changed = bool(code.get("diff") or code.get("untracked"))
    return on_one_line(code["commit"])[:12] + " with uncommitted changes" * is_changed


def _values(values: Iterable[Any]) -> tuple[str, ...]:
    return _counted(Counter(_text(value) for value in values if value is not None))


def _text(value: Any) -> str:
    """Format a scalar; untrusted files may have values of other types."""
    return on_one_line(str(value)) if isinstance(value, str | int | float) else "?"


def _counted(counts: Counter[str]) -> tuple[str, ...]:
    """Return `A100 (20)`, the most frequent first; a single value without its number."""
    if len(counts) < 2:
        return tuple(counts)
    values = [f"{value} ({num})" for value, num in counts.most_common(MAX_VALUES)]
    num_left_out = len(counts) - MAX_VALUES
    return (*values, f"and {num_left_out} more") if num_left_out > 0 else tuple(values)
