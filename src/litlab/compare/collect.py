"""Runs from directories, by their config.yaml and result.json; what is damaged or none of ours is named and skipped."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from litlab.compare.hyperparameters import comparable
from litlab.compare.model import Objective, Run, Skipped
from litlab.config.freeze import swept
from litlab.config.tree import check_plain, flatten
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.state import RunState, read_state, state_from_result
from litlab.sweep.discover import MAX_DEPTH, DiscoveredRun, is_run_or_study, runs_at, subdirectories
from litlab.sweep.study import STUDY_FILE

_LONGEST_FILE = 1 << 20  # bytes of config.yaml or result.json; ours have a few thousand
_LONGEST_NAME = 100  # characters of the name of a metric
_LARGEST = 1e300
_NO_RUNS = "holds no runs"


def collect(directories: Sequence[Path]) -> tuple[list[Run], list[Skipped]]:
    """All runs at or below directories, each once, in their order; and what could not be used."""
    runs: list[Run] = []
    skipped: list[Skipped] = []
    seen: set[Path] = set()
    places_swept: set[str] = set()
    for directory in directories:
        for found in _found(directory, skipped):
            path = found.run.path.resolve()
            if path in seen:
                continue
            seen.add(path)
            try:
                config = _config(found.run)
                runs.append(_read(found, config, _name(found.run.path, directory, len(directories) > 1)))
                places_swept.update(swept(config))
            except (UserError, OSError) as error:
                skipped.append(Skipped(found.run.path, _why(error, found.run.path)))
    return comparable(runs, places_swept), skipped


def studies(directories: Sequence[Path]) -> list[Path]:
    """Those at or below directories, each once; without what can't be read, which `collect` names."""
    found = [place for each in directories if each.is_dir() for place in _places(each, MAX_DEPTH, [])]
    return [place for place in dict.fromkeys(found) if (place / STUDY_FILE).is_file()]


def _found(directory: Path, skipped: list[Skipped]) -> Iterator[DiscoveredRun]:
    """The runs at a directory; adds to `skipped` what is no run, no study and no folder of any, or damaged."""
    if not directory.is_dir():
        skipped.append(Skipped(directory, "is a file; name a directory" if directory.exists() else "no such directory"))
        return
    for place in _places(directory, MAX_DEPTH, skipped):
        try:
            found = runs_at(place)
        except (UserError, OSError) as error:
            skipped.append(Skipped(place, _why(error, place)))
            continue
        if not found:
            skipped.append(Skipped(place, "a study without jobs"))
        yield from found


def _places(directory: Path, levels: int, skipped: list[Skipped]) -> list[Path]:
    """Runs and studies; the topmost subdirectories without any are named, and those that can't be read."""
    without: list[Skipped] = []
    try:
        if is_run_or_study(directory):
            return [directory]
        below = [each for each in subdirectories(directory) if not each.name.startswith(".")] if levels else []
    except OSError as error:
        skipped.append(Skipped(directory, str(error.strerror)))
        return []
    found = [place for each in below for place in _places(each, levels - 1, without)]
    unreadable = [each for each in without if each.why != _NO_RUNS]
    skipped += without if found else unreadable or [Skipped(directory, _NO_RUNS)]
    return found


def _name(path: Path, directory: Path, with_directory: bool) -> str:
    """Where it is below the directory that was named, which comes before it if there are several."""
    below = str(path.relative_to(directory))
    if below == ".":
        return directory.resolve().name
    return f"{directory.resolve().name}/{below}" if with_directory else below


def _config(run: RunDirectory) -> dict[str, Any]:
    """
    Raises:
        UserError: if it is damaged, or what no run of litlab has.
        OSError: if it can't be read.
    """
    _refuse_long(run.config)
    config = run.read_config()
    if type(config.get("format")) is not int:
        raise UserError("its config.yaml is none of litlab's: it has no key `format` with a number")
    check_plain(config)
    return config


def _refuse_long(file: Path) -> None:
    if file.stat().st_size > _LONGEST_FILE:
        raise UserError(f"{file} is damaged: it is longer than {_LONGEST_FILE >> 20} MiB")


def _read(found: DiscoveredRun, config: dict[str, Any], name: str) -> Run:
    """
    Raises:
        UserError: if result.json is damaged.
        OSError: if a file can't be read.
    """
    run = found.run
    state, result = _outcome(run)
    seed = config.get("seed")
    return Run(
        path=run.path,
        name=name,
        study=found.study,
        status=state.status,
        message=state.message,
        seed=seed if type(seed) is int else None,
        settings=flatten(config),
        choices=found.point,
        objective=_objective(config.get("objective")),
        data=data if isinstance(data := result.get("data"), str) else None,
        best=_metrics(result.get("best")),
        last=_metrics(result.get("last")),
        test=_metrics(result.get("test")),
        epochs=_count(result.get("epochs")) or 0,
        steps=_count(result.get("steps")) or 0,
        training_seconds=_number(_mapping(result.get("seconds")).get("training")),
        images_per_second=_number(result.get("images_per_second")),
        parameters=_count(result.get("parameters")),
    )


def _outcome(run: RunDirectory) -> tuple[RunState, Mapping[str, Any]]:
    """
    Raises:
        UserError: if result.json is there, and damaged.
    """
    if not run.result.exists():
        return read_state(run), {}
    _refuse_long(run.result)
    result = run.read_json(run.result)
    return state_from_result(result), _mapping(result)


def _objective(found: Any) -> Objective | None:
    """What is no objective that litlab would have accepted is none."""
    metric, mode = _mapping(found).get("metric"), _mapping(found).get("mode")
    if not isinstance(metric, str) or not _is_name(metric) or mode not in ("max", "min"):
        return None
    return None if metric.startswith("test/") else Objective(metric, mode)


def _metrics(found: Any) -> dict[str, float]:
    """Those that have a finite value."""
    values = {name: _number(value) for name, value in _mapping(found).items() if _is_name(name)}
    return {name: value for name, value in values.items() if value is not None}


def _is_name(name: str) -> bool:
    return 0 < len(name) <= _LONGEST_NAME and name.isprintable()


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _LARGEST and math.isfinite(value) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _LARGEST else None


def _why(error: UserError | OSError, path: Path) -> str:
    """The message, without the path that stands before it already."""
    said = (error.strerror or "it can't be read") if isinstance(error, OSError) else str(error)
    return said.replace(f"{path}/", "")
