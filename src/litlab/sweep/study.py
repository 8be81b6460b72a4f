"""A study on the disk: what was asked for in study.yaml, its jobs in jobs.jsonl, each in a directory of its own.

Jobs are known by the identity of their configs and keep their numbers; records are only ever added.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import sweep, sync_directory, write_text
from litlab.runs.lock import owning
from litlab.sweep.backends.base import Job
from litlab.sweep.plan import Plan, Record, from_lines, plan_from_yaml, plan_to_yaml, to_line, whole_lines

if TYPE_CHECKING:
    from litlab.config.jobs import ComposedJob


__all__ = ["FILE", "RECORDS", "Plan", "Record", "Study"]
FILE = "study.yaml"
RECORDS = "jobs.jsonl"
_OTHERS = "choose another study.name (or hydra.sweep.dir) for this one"


class Study:
    """
    Attributes:
        path: its directory, which may not be there yet.
        plan: None for a study that is new.
        records: of its jobs, in the order of their numbers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan: Plan | None = None
        self.records: list[Record] = []
        self._found: tuple[bytes | None, bytes | None] = (None, None)
        self._held = False

    @classmethod
    def read(cls, path: Path) -> "Study":
        """To go on with it, or begin it; nothing is written, and no lock is held.

        Raises:
            UserError: if the directory is something else, is damaged, or belongs to somebody else.
            OSError: if nothing can be written there.
        """
        from litlab.runs.signature import study_signature_problem

        study = cls.look(path)
        _refuse_unwritable(path)
        content = study._found[0]
        if content is not None and (doubt := study_signature_problem(path, content)) is not None:
            raise UserError(
                f"{path / FILE} is not signed by you: {doubt}. To continue a study means to run what it says, "
                "so only your own are continued (looking at it with `litlab status` is safe); use another study.name"
            )
        return study

    @classmethod
    def look(cls, path: Path) -> "Study":
        """To look at it only, whoever made it.

        Raises:
            UserError: if the directory is something else or is damaged.
        """
        study = cls(path)
        study._found = content, records = _read(path / FILE), _read(path / RECORDS)
        if content is None:
            _refuse_other(path)
        else:
            study.plan = plan_from_yaml(path / FILE, content)
            study.records = from_lines(path / RECORDS, records or b"")
        return study

    @property
    def known(self) -> dict[str, tuple[int, str]]:
        """Identity -> number and directory, of the jobs there are."""
        return {each.identity: (each.number, each.directory) for each in self.records}

    @property
    def next_number(self) -> int:
        return 1 + max((each.number for each in self.records), default=-1)

    def jobs(self) -> list[tuple[Record, RunDirectory]]:
        """All jobs with their directories, in the order of their numbers."""
        return [(each, RunDirectory(self.path / each.directory)) for each in self.records]

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Make the directory where needed, and hold its lock: within this the study may be written.

        Raises:
            UserError: if another process holds it, or it has changed since it was read.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with owning(self.path) as lock:
            if self._found != (_read(self.path / FILE), _read(self.path / RECORDS)):
                raise UserError(f"{self.path} was changed by another command a moment ago; call this one again")
            sweep(self.path)
            self._held = True
            try:
                yield
            finally:
                self._held = False
                lock.truncate(0)  # for whoever looks: nobody is at it any more

    def check(self, plan: Plan, composed: Sequence["ComposedJob"]) -> None:
        """
        Raises:
            UserError: if what is asked for now would not be the same study, with what differs.
        """
        from litlab.sweep.jobs import check_same

        check_same(self, plan, composed)

    def write_plan(self, plan: Plan) -> None:
        """Write and sign study.yaml; axes keep the values that they had.

        Raises:
            OSError: if it can't be written.
        """
        from litlab.runs.signature import sign_study

        assert self._held
        if self.plan is not None and self.records:
            plan = replace(plan, axes=_merged(self.plan.axes, plan.axes), started=self.plan.started)
        before, text = self._found[0], plan_to_yaml(plan)
        if text.encode() == before:
            return
        sign_study(self.path, *([before] if before is not None else []), text.encode())
        write_text(self.path / FILE, text)
        sign_study(self.path, text.encode())
        self.plan, self._found = plan, (text.encode(), self._found[1])

    def admit(self, composed: Sequence["ComposedJob"], provenance: dict[str, Any]) -> list[Job]:
        """Give new jobs their directories and records; let unfinished known ones go on as is asked for now.

        Args:
            composed: the jobs; of new ones the number of threads is settled as far as it can be.
            provenance: of the command, as `runs.provenance.of_launch` gives it.

        Returns:
            all of them, in this order.

        Raises:
            UserError: if the directory of one holds something else.
            OSError: if they can't be written.
        """
        from litlab.sweep.jobs import admit

        assert self._held
        return admit(self, composed, provenance)

    def append(self, records: Sequence[Record]) -> None:
        """Add records whose directories are whole."""
        assert self._held
        if not records:
            return
        before, lines = whole_lines(self._found[1] or b""), "".join(map(to_line, records)).encode()
        with (self.path / RECORDS).open("ab", buffering=0) as file:
            file.truncate(len(before))  # without a torn last line
            rest = lines
            while rest:  # a disk that fills up takes a part of it first
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        sync_directory(self.path)
        self.records += records
        self._found = (self._found[0], before + lines)


def _merged(before: dict[str, list[str]], now: dict[str, list[str]]) -> dict[str, list[str]]:
    """The axes of both, each with the values of both."""
    return {key: list(dict.fromkeys([*before.get(key, ()), *now.get(key, ())])) for key in {**before, **now}}


def _read(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _refuse_unwritable(path: Path) -> None:
    """Found here, a place is refused before seconds have gone into composing.

    Raises:
        OSError: with the path.
    """
    above = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not above.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not os.access(above, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _refuse_other(path: Path) -> None:
    """Only what a study leaves that was killed while it began may be there.

    Raises:
        UserError: saying what is in the way.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise UserError(f"{path} is a file; a study makes a directory there: {_OTHERS}")
    others = [each.name for each in path.iterdir() if not _is_ours(each.name)]
    if "config.yaml" in others:
        raise UserError(f"{path} is the directory of a run, not of a study; {_OTHERS}")
    if any(path.glob("*/.hydra")):
        raise UserError(f"{path} holds runs of another launcher or of single commands, but no {FILE}; {_OTHERS}")
    if others:
        raise UserError(f"{path} holds other things ({', '.join(sorted(others)[:3])}), but no {FILE}; {_OTHERS}")


def _is_ours(name: str) -> bool:
    """Or Hydra's: its sweepers write a multirun.yaml before a launcher is asked."""
    return name in (".lock", ".signature", "multirun.yaml") or (name.startswith(".") and name.endswith(".tmp"))
