"""Record of the looks at a study: a line of its looks.jsonl for each comparison that showed its results.

Tests of a fixed number of seeds hold for a study that nobody compared before that number was reached; this file tells.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from litlab.compare.data_model import Comparison, Group, Run
from litlab.errors import UserError
from litlab.runs.terminal import display_path
from litlab.sweep.study import STUDY_FILE, Study

LOOKS_FILE = "looks.jsonl"
_MAX_BYTES = 1 << 24
_NUMBERS, _TEXTS = ("lowest", "highest", "num_groups"), ("time", "metric", "at", "groups")


@dataclass(frozen=True)
class Look:
    """A line of looks.jsonl.

    Attributes:
        time: ISO time, UTC.
        metric: Compared metric.
        at: Place in a run: `best`, `last` or `epoch=N`.
        baseline: Name of the group that the others were compared with; None without one.
        lowest: Number of seeds that had ended of the group of this study that had the fewest.
        highest: The same of the group that had the most.
        num_groups: Number of groups with runs of this study.
        groups: Hash of their names.
    """

    time: str
    metric: str
    at: str
    baseline: str | None
    lowest: int
    highest: int
    num_groups: int
    groups: str

    def to_line(self) -> str:
        """Serialize to a line of looks.jsonl."""
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"


def read_looks(study: Path) -> list[Look]:
    """Read the looks at a study, from the first to the last; none if it has no looks.jsonl.

    Raises:
        UserError: If the file is damaged.
        OSError: If it can't be read.
    """
    file = study / LOOKS_FILE
    if not file.exists() and not file.is_symlink():
        return []
    if not file.is_file() or file.stat().st_size > _MAX_BYTES:
        raise UserError(f"{file} is damaged: it is no regular file of at most {_MAX_BYTES >> 20} MiB")
    content = file.read_bytes()
    lines = content[: content.rfind(b"\n") + 1].splitlines()
    try:
        return [_parse(line) for line in lines]
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is damaged: {error}") from error


def record_looks(comparison: Comparison, time: datetime | None = None) -> list[str]:
    """Append this look to each of the user's own studies that it compares, unless it is equal to the last one.

    Args:
        comparison: Comparison that is about to be shown.
        time: Time of the look; by default now.

    Returns:
        A note for each study in which it could not be recorded.
    """
    time = datetime.now(UTC) if time is None else time
    notes = []
    for path in studies_of(comparison.all_groups):
        try:
            study = Study.load(path)
            if study.plan is None or study.signature_problem() is not None:
                continue  # of somebody else, or moved without its plan
            _append(path, _look_at(path, comparison, time.isoformat(timespec="seconds")))
        except (UserError, OSError) as error:
            reason = error.strerror or "it can't be written" if isinstance(error, OSError) else str(error)
            notes.append(f"{display_path(path)}: this look could not be recorded in {LOOKS_FILE}: {reason}")
    return notes


def studies_of(groups: Iterable[Group]) -> list[Path]:
    """Return the studies that the runs of groups belong to, each once."""
    found = (study_of(run) for group in groups for run in group.runs)
    return list(dict.fromkeys(study for study in found if study is not None))


def study_of(run: Run) -> Path | None:
    """Return the study of a run, also if the run was named itself; None without one."""
    return run.study or next((folder for folder in run.path.parents[:2] if (folder / STUDY_FILE).is_file()), None)


def _look_at(study: Path, comparison: Comparison, time: str) -> Look:
    of_study = [(group, [run for run in group.runs if study_of(run) == study]) for group in comparison.all_groups]
    ended = {group.name: len({run.unit for run in runs}) + group.num_without_value for group, runs in of_study if runs}
    names, nums = sorted(ended), list(ended.values())
    lowest = min(nums)
    if any(not group.runs for group in comparison.all_groups):
        lowest = 0  # a group without any completed run, whose study is not known
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return Look(time, comparison.metric.name, comparison.at, comparison.baseline, lowest, max(nums), len(names), digest)


def _append(study: Path, look: Look) -> None:
    """Append a whole line, in place of a torn last one."""
    looks = read_looks(study)
    if looks and replace(looks[-1], time=look.time) == look:
        return
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    descriptor = os.open(study / LOOKS_FILE, flags, 0o666)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
        remaining = look.to_line().encode()
        while remaining:  # a disk that fills up takes a part of it first
            remaining = remaining[file.write(remaining) :]


def _parse(line: bytes) -> Look:
    values = json.loads(line)
    if not isinstance(values, dict) or values.keys() != {*_NUMBERS, *_TEXTS, "baseline"}:
        raise ValueError("a line does not describe a look")
    numbers: Sequence[object] = [values[name] for name in _NUMBERS]
    texts = [values[name] for name in _TEXTS] + [values["baseline"] or ""]
    if any(type(num) is not int or num < 0 for num in numbers) or not all(isinstance(text, str) for text in texts):
        raise ValueError("a line does not describe a look")
    datetime.fromisoformat(values["time"])
    return Look(**values)
