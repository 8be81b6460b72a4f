"""What is written down of a study: study.yaml and the lines of jobs.jsonl. What is read may be a stranger's."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from litlab.errors import UserError
from litlab.runs.later_keys import with_later_keys
from litlab.runs.text import load_yaml

_FORMAT = 1
_LONGEST = 255  # bytes of a file name
_NO_JOB = "it does not describe a job"
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_TYPES: dict[str, type] = {
    "kind": str, "axes": dict, "base": dict, "arguments": list, "launcher": dict, "search": dict, "num_jobs": int,
}  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """What was asked for; study.yaml holds it.

    Attributes:
        kind: whether the jobs are known beforehand.
        axes: key -> its values in Hydra's grammar; of a search, what its space is.
        base: the composed config without what is swept: unresolved, secrets masked.
        arguments: of the `litlab train` that does it again.
        launcher: settings of the pool.
        search: settings of a search; {} for a grid.
        project: the folder that the command was called in.
        started: ISO time, UTC.
        num_jobs: that a grid has; fewer are recorded as long as it is being set up.
    """

    kind: Literal["grid", "search"]
    axes: dict[str, list[str]]
    base: dict[str, Any]
    arguments: list[str]
    launcher: dict[str, Any]
    search: dict[str, Any]
    project: str
    started: str
    num_jobs: int = 0


@dataclass(frozen=True)
class Record:
    """A job: a line of jobs.jsonl.

    Attributes:
        number: in the study, from 0.
        directory: its path inside the study.
        identity: of its config, by litlab.config.freeze.
        overrides: that it was composed from.
        point: the swept keys with their values as texts.
    """

    number: int
    directory: str
    identity: str
    overrides: list[str]
    point: dict[str, str]


def plan_to_yaml(plan: Plan) -> str:
    """The text of study.yaml."""
    return str(yaml.dump({"format": _FORMAT, **asdict(plan)}, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))


def plan_from_yaml(file: Path, content: bytes) -> Plan:
    """
    Raises:
        UserError: if it is damaged, or of a format that this version doesn't read.
    """
    try:
        found = load_yaml(content)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file} is damaged: {error}") from error
    if not isinstance(found, dict) or "format" not in found:
        raise UserError(f"{file} is damaged: it has no key `format`")
    if (number := found.pop("format")) != _FORMAT:
        raise UserError(f"{file}: its format is {number!r}; this version of litlab reads format {_FORMAT}")
    names = [each.name for each in fields(Plan)]
    wrong = [name for name in names if not isinstance(found.get(name), _TYPES.get(name, str))]
    if wrong or found.keys() != set(names) or found["kind"] not in ("grid", "search") or not _are_axes(found["axes"]):
        raise UserError(f"{file} is damaged: expected the keys {', '.join(names)}{_about(wrong)}")
    return Plan(**found | {"base": with_later_keys(found["base"])})


def _about(wrong: Sequence[str]) -> str:
    return f"; wrong or missing: {', '.join(wrong)}" if wrong else ""


def _are_axes(axes: dict[Any, Any]) -> bool:
    return all(isinstance(key, str) and _are_texts(values) for key, values in axes.items())


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(each, str) for each in values)


def to_line(record: Record) -> str:
    """A line of jobs.jsonl."""
    return json.dumps(asdict(record), ensure_ascii=False) + "\n"


def whole_lines(content: bytes) -> bytes:
    """Without a torn last line."""
    return content[: content.rfind(b"\n") + 1]


def from_lines(file: Path, content: bytes) -> list[Record]:
    """The records of jobs.jsonl, by their numbers; a torn last line is left out.

    Raises:
        UserError: if it is damaged, naming the first line that is.
    """
    records = []
    for number, line in enumerate(whole_lines(content).splitlines(), 1):
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged in line {number}: {error}") from error
    for what, values in (("number", [each.number for each in records]), ("directory", [r.directory for r in records])):
        (value, count), *_ = Counter(values).most_common(1) or [("", 0)]
        if count > 1:
            raise UserError(f"{file} is damaged: {count} jobs have the {what} {value!r}")
    return sorted(records, key=lambda each: each.number)


def _record(found: Any) -> Record:
    """
    Raises:
        ValueError: if it is none.
    """
    if not isinstance(found, dict) or found.keys() != {each.name for each in fields(Record)}:
        raise ValueError(_NO_JOB)
    record = Record(**found)
    if not isinstance(record.overrides, list) or not isinstance(record.point, dict):
        raise ValueError(_NO_JOB)
    texts = [*record.overrides, *record.point, *record.point.values(), record.directory, record.identity]
    if type(record.number) is not int or record.number < 0 or not _are_texts(texts):
        raise ValueError(_NO_JOB)
    path = PurePosixPath(record.directory)
    is_inside = not path.is_absolute() and path.parts and ".." not in path.parts and "\0" not in record.directory
    if not is_inside or max(len(part.encode()) for part in path.parts) > _LONGEST:
        raise ValueError(f"{record.directory!r} is no path inside of the study")
    return record
