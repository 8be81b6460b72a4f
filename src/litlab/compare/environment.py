"""In what environment runs were made: what their provenance.json files say, each value once, with how many have it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from litlab.compare.conclusion import on_one_line
from litlab.compare.model import Run
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory

MOST_RUNS = 200  # that are read
MOST_VALUES = 8  # of one fact
MOST_PACKAGES = 500
_LARGEST = 1 << 26  # bytes of a file; ours have some thousand, and the code that was not committed
MAIN_PACKAGES = ("litlab", "torch", "lightning", "torchmetrics", "torchvision", "numpy", "hydra-core", "optuna")
_OF_MACHINE = ("device", "processor", "cores", "ranks", "threads", "precision", "system", "python")


@dataclass(frozen=True)
class _Record:
    """What is kept of a provenance.json, which may hold megabytes of code."""

    machine: Mapping[str, Any]
    commit: str | None
    started: date | None


@dataclass(frozen=True)
class Environment:
    """
    Attributes:
        num_read: runs whose provenance.json was read; at most MOST_RUNS are tried.
        facts: name -> its values, the most frequent first.
        packages: name and version of those that make the results, and of those that differ between runs.
        other_packages: of all others, `name version`.
        dates: on which the runs were started.
    """

    num_read: int
    facts: Mapping[str, tuple[str, ...]]
    packages: Mapping[str, tuple[str, ...]]
    other_packages: tuple[str, ...]
    dates: tuple[date, ...]


def environment_of(runs: Sequence[Run]) -> Environment:
    """Read it; a file that is missing or damaged is passed over."""
    records = [record for run in runs[:MOST_RUNS] if (record := _record(run))]
    machines = [record.machine for record in records]
    facts = {name: _values(machine.get(name) for machine in machines) for name in _OF_MACHINE}
    facts = {"commit": _values(record.commit for record in records), **facts}
    versions: dict[str, Counter[str]] = {}
    for machine in machines:
        for package, version in list(_mapping(machine.get("packages")).items())[:MOST_PACKAGES]:
            versions.setdefault(on_one_line(package), Counter())[_text(version)] += 1
    told = {name for name, counts in versions.items() if len(counts) > 1} | set(MAIN_PACKAGES)
    order = [*MAIN_PACKAGES, *sorted(versions.keys() - set(MAIN_PACKAGES), key=str.lower)][:MOST_PACKAGES]
    return Environment(
        num_read=len(records),
        facts={name: values for name, values in facts.items() if values},
        packages={name: _counted(versions[name]) for name in order if name in versions and name in told},
        other_packages=tuple(f"{name} {next(iter(versions[name]))}" for name in order if name not in told),
        dates=tuple(record.started for record in records if record.started),
    )


def _record(run: Run) -> _Record | None:
    """None where there is no file, or one that is damaged or too large to be read."""
    directory = RunDirectory(run.path)
    try:
        if directory.provenance.stat().st_size > _LARGEST:
            return None
        found = _mapping(directory.read_json(directory.provenance))
    except (UserError, OSError):
        return None
    return _Record(_mapping(found.get("machine")), _commit(found), _day(found.get("started"))) if found else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _day(value: Any) -> date | None:
    try:
        return date.fromisoformat(value[:10]) if isinstance(value, str) else None
    except ValueError:
        return None


def _commit(record: Mapping[str, Any]) -> str | None:
    code = _mapping(record.get("code"))
    if not isinstance(code.get("commit"), str):
        return None
    changed = code.get("diff") or code.get("untracked")
    return on_one_line(code["commit"])[:12] + " with uncommitted changes" * bool(changed)


def _values(found: Iterator[Any]) -> tuple[str, ...]:
    return _counted(Counter(_text(value) for value in found if value is not None))


def _text(value: Any) -> str:
    """Of a scalar; what else a stranger's file may have is not looked into."""
    return on_one_line(str(value)) if isinstance(value, str | int | float) else "?"


def _counted(counts: Counter[str]) -> tuple[str, ...]:
    """`A100 (20)`, the most frequent first; without the number where there is one value alone."""
    if len(counts) < 2:
        return tuple(counts)
    told = [f"{value} ({num})" for value, num in counts.most_common(MOST_VALUES)]
    left_out = len(counts) - MOST_VALUES
    return (*told, f"and {left_out} more") if left_out > 0 else tuple(told)
