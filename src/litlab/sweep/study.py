"""A study on disk: its plan in study.yaml, its jobs in jobs.jsonl, a directory for each job.

Jobs are identified by the identity of their configs and keep their numbers; records are only ever appended. The files
may be damaged or made by somebody else, so everything in them is checked when they are read.
"""

import errno
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import check_locks, remove_temporary_files, sync_directory, write_text
from litlab.runs.heartbeat import HeartbeatThread
from litlab.runs.lock import directory_lock
from litlab.runs.safe_yaml import load_yaml
from litlab.runs.signature import sign_study, study_signature_problem

STUDY_FILE = "study.yaml"
JOBS_FILE = "jobs.jsonl"
DECISION_FILE = "decision.json"  # of a decide study
KINDS = ("grid", "search", "decide")
_FORMAT = 3
_MAX_NAME_BYTES = 255
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_PLAN_TYPES: dict[str, type] = {
    "kind": str, "axes": dict, "base": dict, "arguments": list, "launcher": dict, "search": dict, "num_jobs": int,
}  # fmt: skip
_CHOOSE_ANOTHER = "choose another study.name (or hydra.sweep.dir) for this one"


@dataclass(frozen=True)
class Plan:
    """Contents of study.yaml: what the command of the study asked for.

    Attributes:
        kind: Type of the study: all jobs of a grid are known beforehand, those of the others are not.
        axes: Values of each swept key in Hydra's grammar; for a search, the expressions of its space.
        base: Composed config without the swept values, unresolved and with secrets masked.
        arguments: Arguments of `litlab train` that repeat the command.
        launcher: Settings of the backend.
        search: Settings of the sweeper; empty for a grid.
        project: Folder in which the command was called.
        started: ISO time, UTC.
        num_jobs: Number of jobs of a grid; fewer are recorded while it is being set up.
        planned_seeds: Number of seeds that the first command planned for each setting, and each larger one that a later
            command planned; empty if none did, None if the study was begun by a litlab that did not record them.
    """

    kind: Literal["grid", "search", "decide"]
    axes: dict[str, list[str]]
    base: dict[str, Any]
    arguments: list[str]
    launcher: dict[str, Any]
    search: dict[str, Any]
    project: str
    started: str
    num_jobs: int = 0
    planned_seeds: list[int] | None = None

    def to_yaml(self) -> str:
        """Serialize to the text of study.yaml."""
        values = {"format": _FORMAT, **asdict(self)}
        if self.planned_seeds is None:
            del values["planned_seeds"]
        return str(yaml.dump(values, Dumper=_DUMPER, sort_keys=False, allow_unicode=True))

    @classmethod
    def from_yaml(cls, file: Path, content: bytes) -> "Plan":
        """Parse the contents of study.yaml, whose path is for error messages.

        Raises:
            UserError: If the file is damaged or has another format.
        """
        try:
            values = load_yaml(content)
        except (ValueError, RecursionError, yaml.YAMLError) as error:
            raise UserError(f"{file} is damaged: {error}") from error
        if not isinstance(values, dict) or "format" not in values:
            raise UserError(f"{file} is damaged: it has no key `format`")
        if (number := values.pop("format")) != _FORMAT:
            raise UserError(f"{file}: its format is {number!r}; this version of litlab reads format {_FORMAT}")
        names = [field.name for field in fields(cls) if field.name != "planned_seeds"]
        wrong = [name for name in names if not isinstance(values.get(name), _PLAN_TYPES.get(name, str))]
        if "planned_seeds" in values:  # not in the studies of earlier versions
            names.append("planned_seeds")
            wrong += ["planned_seeds"] * (not _are_planned_seeds(values["planned_seeds"]))
        are_axes = not wrong and all(map(_are_texts, [[*values["axes"]], *values["axes"].values()]))
        if not are_axes or values.keys() != set(names) or values["kind"] not in KINDS:
            details = f"; wrong or missing: {', '.join(wrong)}" if wrong else ""
            raise UserError(f"{file} is damaged: expected the keys {', '.join(names)}{details}")
        return cls(**values)


@dataclass(frozen=True)
class JobRecord:
    """A line of jobs.jsonl.

    Attributes:
        number: Number in the study, from 0.
        directory: Path relative to the study.
        identity: Identity of the config, see `litlab.config.config_file`.
        overrides: Overrides that the config was composed from.
        point: Swept keys with their values as texts.
    """

    number: int
    directory: str
    identity: str
    overrides: list[str]
    point: dict[str, str]

    def to_line(self) -> str:
        """Serialize to a line of jobs.jsonl."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


class Study:
    """The directory of a study.

    Attributes:
        path: Directory of the study, which may not exist yet.
        plan: Contents of study.yaml; None for a new study.
        records: Records of the jobs, by number.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan: Plan | None = None
        self.records: list[JobRecord] = []
        self._plan_content: bytes | None = None
        self._jobs_content: bytes | None = None
        self._is_own = False
        self._is_locked = False

    @classmethod
    def load(cls, path: Path) -> "Study":
        """Load any study for reading, no matter who made it.

        Raises:
            UserError: If the directory is something else or is damaged.
        """
        study = cls(path)
        study._plan_content, study._jobs_content = _read(path / STUDY_FILE), _read(path / JOBS_FILE)
        if study._plan_content is None:
            _refuse_other_directory(path)
        else:
            study.plan = Plan.from_yaml(path / STUDY_FILE, study._plan_content)
            study.records = _parse_records(path / JOBS_FILE, study._jobs_content or b"")
        return study

    @classmethod
    def load_own(cls, path: Path) -> "Study":
        """Load a study of the user's own to begin or continue it. Nothing is written, no lock is taken.

        Raises:
            UserError: If the directory is something else, is damaged, or is not signed by the user.
            OSError: If nothing can be written there.
        """
        study = cls.load(path)
        _check_writable(path)
        if (problem := study.signature_problem()) is not None:
            raise UserError(
                f"{path / STUDY_FILE} is not signed by you: {problem}. To continue a study means to run what it says, "
                "so only your own are continued (looking at it with `litlab status` is safe); use another study.name"
            )
        study._is_own = True
        return study

    def signature_problem(self) -> str | None:
        """Return the reason why this is not a study of the user's own; None if it is, or is new."""
        return None if self._plan_content is None else study_signature_problem(self.path, self._plan_content)

    @property
    def known_jobs(self) -> dict[str, tuple[int, str]]:
        """Number and directory of the recorded jobs by identity."""
        return {record.identity: (record.number, record.directory) for record in self.records}

    @property
    def next_number(self) -> int:
        """The first number that no job has."""
        return 1 + max((record.number for record in self.records), default=-1)

    def run_of(self, record: JobRecord) -> RunDirectory:
        """Return the run directory of a job."""
        return RunDirectory(self.path / record.directory)

    def jobs(self) -> list[tuple[JobRecord, RunDirectory]]:
        """Return all jobs with their run directories, by number."""
        return [(record, self.run_of(record)) for record in self.records]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Create the directory if needed, and hold its lock; only then may the study be written.

        Raises:
            UserError: If another process holds the lock, or the study has changed since it was loaded.
        """
        assert self._is_own, "not loaded by load_own"
        self.path.mkdir(parents=True, exist_ok=True)
        with directory_lock(self.path) as lock, HeartbeatThread(RunDirectory(self.path)):
            contents = _read(self.path / STUDY_FILE), _read(self.path / JOBS_FILE)
            if contents != (self._plan_content, self._jobs_content):
                raise UserError(f"{self.path} was just changed by another command; run this command again")
            remove_temporary_files(self.path)
            self._is_locked = True
            try:
                yield
            finally:
                self._is_locked = False
                lock.truncate(0)  # `litlab status --watch` reads from it that nobody works on the study anymore

    def write_plan(self, plan: Plan) -> None:
        """Write and sign study.yaml; axes and planned seeds keep their former values. Requires the lock.

        Raises:
            OSError: If it can't be written.
        """
        assert self._is_locked
        if self.plan is not None and self.records:
            plan = replace(plan, axes=_merge_axes(self.plan.axes, plan.axes), started=self.plan.started)
            plan = replace(plan, planned_seeds=_merge_planned_seeds(self.plan, plan))
        before, content = self._plan_content, plan.to_yaml().encode()
        if content == before:
            return
        sign_study(self.path, *filter(None, [before]), content)  # valid for either until it is replaced
        write_text(self.path / STUDY_FILE, content.decode())
        sign_study(self.path, content)
        self.plan, self._plan_content = plan, content

    def append(self, records: Sequence[JobRecord]) -> None:
        """Append records to jobs.jsonl, once their run directories are complete. Requires the lock."""
        assert self._is_locked
        if not records:
            return
        before = _whole_lines(self._jobs_content or b"")
        lines = "".join(record.to_line() for record in records).encode()
        with (self.path / JOBS_FILE).open("ab", buffering=0) as file:
            file.truncate(len(before))  # without a torn last line
            remaining = lines
            while remaining:  # a disk that fills up takes a part of it first
                remaining = remaining[file.write(remaining) :]
            os.fsync(file.fileno())
        sync_directory(self.path)
        self.records += records
        self._jobs_content = before + lines


def _merge_axes(before: dict[str, list[str]], after: dict[str, list[str]]) -> dict[str, list[str]]:
    return {key: list(dict.fromkeys([*before.get(key, ()), *after.get(key, ())])) for key in {**before, **after}}


def _merge_planned_seeds(before: Plan, after: Plan) -> list[int] | None:
    """Add the seeds of a later command if they are more, with the axes of both; nothing becomes known afterwards."""
    if before.planned_seeds is None:
        return None
    swept = 0 if after.kind == "search" else len(after.axes.get("seed", ()))
    num = max([swept, *(after.planned_seeds or ())])
    return [*before.planned_seeds, *[num] * (num > max(before.planned_seeds, default=0))]


def _are_planned_seeds(value: Any) -> bool:
    """Return True for a list of increasing positive numbers."""
    if not isinstance(value, list) or any(type(num) is not int for num in value):
        return False
    return all(before < after for before, after in pairwise([0, *value]))


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _whole_lines(content: bytes) -> bytes:
    """Cut a torn last line."""
    return content[: content.rfind(b"\n") + 1]


def _parse_records(file: Path, content: bytes) -> list[JobRecord]:
    """Parse jobs.jsonl, sorted by number."""
    records = []
    for number, line in enumerate(_whole_lines(content).splitlines(), 1):
        try:
            records.append(_parse_record(json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file} is damaged in line {number}: {error}") from error
    for name in ("number", "directory"):
        (value, count), *_ = Counter(getattr(record, name) for record in records).most_common(1) or [("", 0)]
        if count > 1:
            raise UserError(f"{file} is damaged: {count} jobs have the {name} {value!r}")
    return sorted(records, key=lambda record: record.number)


def _parse_record(values: Any) -> JobRecord:
    """Validate a record."""
    not_a_job = ValueError("it does not describe a job")
    if not isinstance(values, dict) or values.keys() != {field.name for field in fields(JobRecord)}:
        raise not_a_job
    record = JobRecord(**values)
    if not isinstance(record.overrides, list) or not isinstance(record.point, dict):
        raise not_a_job
    texts = [*record.overrides, *record.point, *record.point.values(), record.directory, record.identity]
    if type(record.number) is not int or record.number < 0 or not _are_texts(texts):
        raise not_a_job
    path = PurePosixPath(record.directory)
    is_inside = not path.is_absolute() and path.parts and ".." not in path.parts and "\0" not in record.directory
    if not is_inside or max(len(part.encode()) for part in path.parts) > _MAX_NAME_BYTES:
        raise ValueError(f"{record.directory!r} is no path inside of the study")
    return record


def _check_writable(path: Path) -> None:
    """Refuse a read-only place, or one without locks, before seconds have gone into composing."""
    parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not os.access(parent, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    check_locks(parent)


def _refuse_other_directory(path: Path) -> None:
    """Allow a new study only in a missing or empty directory, or one that a killed command has begun."""
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; a study makes a directory there: {_CHOOSE_ANOTHER}")
    others = [file.name for file in path.iterdir() if not _may_precede_plan(file.name)]
    if "config.yaml" in others:
        raise UserError(f"{path} is the directory of a run, not of a study; {_CHOOSE_ANOTHER}")
    if any(path.glob("*/.hydra")):
        raise UserError(
            f"{path} holds runs of another launcher or of single commands, but no {STUDY_FILE}; {_CHOOSE_ANOTHER}"
        )
    if others:
        names = ", ".join(sorted(others)[:3])
        raise UserError(f"{path} holds other things ({names}), but no {STUDY_FILE}; {_CHOOSE_ANOTHER}")


def _may_precede_plan(name: str) -> bool:
    """Recognize files that may exist before study.yaml, such as that of Hydra's sweepers."""
    return name in (".lock", ".signature", "multirun.yaml") or (name.startswith(".") and name.endswith(".tmp"))
