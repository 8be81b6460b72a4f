"""What differs between two runs: config, code, packages, hardware, data, and what came out of them.

A run's files may be a stranger's: whatever they hold, what is shown of it is short and printable.
"""

import csv
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, get_args

from litlab.config.tree import flatten
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics

TIMED = "throughput/"  # metrics that measure the machine, not the experiment
Rows = dict[tuple[int, int, int], float]  # (epoch, step, how many rows before it had the same two) -> value


def rows_by_metric(run: RunDirectory) -> dict[str, Rows]:
    """All rows of metrics.csv but those that measure the machine.

    Raises:
        UserError: if it is missing or damaged.
    """
    if not run.metrics.exists():
        raise UserError(f"{run.metrics} is missing")
    if not run.metrics.is_file():  # at a pipe, one would wait forever
        raise UserError(f"{run.metrics} is damaged: it is no regular file")
    try:
        rows = read_metrics(run.metrics)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{run.metrics} is damaged: {error}") from error
    before: Counter[tuple[int, int, str]] = Counter()
    metrics: dict[str, Rows] = {}
    for row in rows:
        if not row.metric.startswith(TIMED):
            place = (row.epoch, row.step, row.metric)
            metrics.setdefault(row.metric, {})[row.epoch, row.step, before[place]] = row.value
            before[place] += 1
    return metrics


@dataclass(frozen=True)
class Apart:
    """A metric with a row that differs.

    Attributes:
        old, new: its last value in each run, or that of the last row that differs where the two end alike; None
            where there is no such row.
        note: how many rows differ, from where on, and by how much.
    """

    metric: str
    old: float | None
    new: float | None
    note: str


def rows_apart(old: dict[str, Rows], new: dict[str, Rows]) -> Iterator[Apart]:
    """The metrics with a row that differs, to the last bit."""
    for metric in {**old, **new}:
        ours, theirs = old.get(metric, {}), new.get(metric, {})
        everywhere = ours.keys() | theirs.keys()
        apart = [each for each in everywhere if repr(ours.get(each)) != repr(theirs.get(each))]
        if not apart:
            continue
        note = f"{len(apart)} of {len(everywhere)} rows, the first at step {min(step for _, step, _ in apart)}"
        before, after = (rows[max(rows)] if rows else None for rows in (ours, theirs))
        if repr(before) == repr(after):
            before, after = (rows.get(max(apart)) for rows in (ours, theirs))
            note += ", the last of them shown"
        gaps = [abs(ours[each] - theirs[each]) for each in apart if each in ours and each in theirs]
        note += f", by at most {max(gaps, key=_or_infinite):.3g}" if gaps else ""
        yield Apart(metric, before, after, note)


def _or_infinite(gap: float) -> float:
    """To a value that is not a number, there is no greater distance."""
    return math.inf if math.isnan(gap) else gap


Section = Literal["config", "code", "packages", "hardware", "data", "result", "metrics"]
OUTCOME: tuple[Section, ...] = ("result", "metrics")  # the others are what went in
ABSENT = "absent"
MACHINE = ("system", "processor", "cores", "python", "device", "ranks", "threads", "precision")
_HASH = re.compile(r"[0-9a-f]{40,64}")
_WIDEST = 48


@dataclass(frozen=True)
class Difference:
    """One thing that two runs do not share; `old` and `new` as they are shown, ABSENT where one has no such thing."""

    section: Section
    name: str
    old: str
    new: str
    note: str = ""


@dataclass
class Comparison:
    """
    Attributes:
        differences: in the order of the sections.
        unknown: what could not be compared, and why: a section, or `weights`.
        num_rows: rows of metrics.csv of the first run, without what measures the machine.
    """

    differences: list[Difference] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0

    @property
    def identical(self) -> bool:
        """Whether the same came out, to the last bit: weights, metric rows, results; never by want of a record."""
        return "weights" not in self.unknown and not any(each.section in OUTCOME for each in self.differences)

    @property
    def same_recipe(self) -> bool:
        """Whether nothing that went in is known to differ."""
        return all(each.section in OUTCOME for each in self.differences)


def compare(old: RunDirectory, new: RunDirectory) -> Comparison:
    """Hold two completed runs against each other.

    Raises:
        UserError: if a file of either is missing or damaged.
    """
    found = Comparison()
    for _, part in _PARTS:
        part(found, old, new)
    return found


def compare_what_there_is(old: RunDirectory, new: RunDirectory) -> Comparison:
    """Hold any two runs against each other; what a file that is missing or damaged would tell is `unknown`."""
    found = Comparison()
    for sections, part in _PARTS:
        try:
            part(found, old, new)
        except UserError as error:
            found.unknown |= dict.fromkeys(sections, str(error))
        except RecursionError:
            found.unknown |= dict.fromkeys(sections, "what stands there is too deeply nested")
    return found


def changed(section: Section, old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """The keys whose values differ, or that only one has; in the order of the first, then of the second."""
    return [
        Difference(section, shown(key), *_pair(key, old, new))
        for key in {**old, **new}
        if key not in old or key not in new or not _same(old[key], new[key])
    ]


def _pair(key: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[str, str]:
    """The two values of a key as they are shown: with no more digits than tell them apart, and never the same."""
    if key not in old or key not in new:
        before, after = (shown(each[key]) if key in each else ABSENT for each in (old, new))
        return before, after
    values = old[key], new[key]
    if all(isinstance(value, float) for value in values):
        for digits in range(6, 17):
            before, after = (f"{value:.{digits}g}" for value in values)
            if before != after:
                return before, after
    texts = [_written(value) for value in values]
    if texts[0] == texts[1]:  # 0.1 and "0.1"
        texts = [repr(value) for value in values]
    before, after = map(shown, texts)
    if before == after:  # what differs is beyond what is shown
        alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        start = max(alike - _WIDEST // 2, 0)
        before, after = (shown("…" + text[start:]) for text in texts)
    return before, after


def shown(value: Any) -> str:
    """A value on one line: a hash by its beginning, anything long cut, control characters escaped."""
    text = _written(value)
    text = text if text.isprintable() else ascii(text)[1:-1]
    if _HASH.fullmatch(text):
        return text[:12]
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"


def _written(value: Any) -> str:
    """As configs have it: `[6,16]`, `true`."""
    if isinstance(value, list | dict | bool) or value is None:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=str)
    return str(value)


def _compare_configs(found: Comparison, old: RunDirectory, new: RunDirectory) -> None:
    found.differences += changed("config", flatten(old.read_config()), flatten(new.read_config()))


def _record(run: RunDirectory, file: Path) -> dict[str, Any]:
    return _mapping(run.read_json(file)) if file.exists() else {}


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _same(old: Any, new: Any) -> bool:
    """To the last bit and the type: 1 is not 1.0, -0.0 is not 0.0, but NaN is NaN."""
    return repr(old) == repr(new)


def _compare_code(found: Comparison, *runs: RunDirectory) -> None:
    """Commit, uncommitted changes and untracked sources of the project; the version of litlab."""
    provenance = [_record(run, run.provenance) for run in runs]
    states = [_mapping(each.get("code")) for each in provenance]
    versions = [_mapping(_mapping(each.get("machine")).get("packages")).get("litlab") for each in provenance]
    if not all(states):
        found.unknown["code"] = "there is no record of a git repository"
    elif not all(state.get("diff_complete") for state in states):
        found.unknown["code"] = "the uncommitted changes were too long to be recorded whole"
    described = [_described(state) | {"litlab": version} for state, version in zip(states, versions, strict=True)]
    found.differences += changed("code", *described)


def _described(code: dict[str, Any]) -> dict[str, str]:
    if not code:
        return {}
    untracked = {f"untracked {name}": text for name, text in _mapping(code.get("untracked")).items()}
    texts = {"uncommitted changes": code.get("diff")} | untracked
    return {"commit": str(code.get("commit"))} | {name: _digest(text) for name, text in texts.items()}


def _digest(text: Any) -> str:
    """Tells texts apart, and says how long they are; a file that was recorded by its name alone has no text."""
    if text is None:
        return "not recorded"
    lines = str(text).count("\n")
    return f"{lines} lines ({hashlib.sha256(str(text).encode(errors='replace')).hexdigest()[:8]})" if text else "none"


def _compare_machines(found: Comparison, *runs: RunDirectory) -> None:
    machines = [_mapping(_record(run, run.provenance).get("machine")) for run in runs]
    if not all(machines):
        found.unknown |= dict.fromkeys(("packages", "hardware"), "there is no record of the machine")
        return
    packages = [_mapping(each.get("packages")) for each in machines]
    others = [{name: version for name, version in each.items() if name != "litlab"} for each in packages]
    found.differences += changed("packages", *others)
    found.differences += changed("hardware", *({name: each.get(name) for name in MACHINE} for each in machines))


def _compare_data(found: Comparison, *runs: RunDirectory) -> None:
    facts = [_record(run, run.dataset) for run in runs]
    if not any(facts):
        found.unknown["data"] = "data that litlab did not prepare have no fingerprint"
    found.differences += changed("data", *facts)


def _outcome(result: dict[str, Any]) -> dict[str, Any]:
    """What of result.json is the experiment's, not the machine's."""
    metrics = {
        f"{part} {name}": value
        for part in ("best", "last", "test")
        for name, value in _mapping(result.get(part)).items()
        if not name.startswith(TIMED)
    }
    return {key: result.get(key) for key in ("weights", "epochs", "steps", "parameters")} | metrics


def _compare_results(found: Comparison, *runs: RunDirectory) -> None:
    old, new = (_outcome(_mapping(run.read_json(run.result))) for run in runs)
    if not (old["weights"] and new["weights"]):
        found.unknown["weights"] = "result.json holds no hash of them"
        del old["weights"], new["weights"]
    found.differences += changed("result", old, new)


def _compare_metrics(found: Comparison, *runs: RunDirectory) -> None:
    rows = [rows_by_metric(run) for run in runs]
    found.num_rows = sum(map(len, rows[0].values()))
    for each in rows_apart(*rows):
        values = ({} if value is None else {each.metric: value} for value in (each.old, each.new))
        old_text, new_text = _pair(each.metric, *values)
        found.differences.append(Difference("metrics", shown(each.metric), old_text, new_text, each.note))


_PARTS: tuple[tuple[tuple[Section, ...], Callable[[Comparison, RunDirectory, RunDirectory], None]], ...] = (
    (("config",), _compare_configs),
    (("code",), _compare_code),
    (("packages", "hardware"), _compare_machines),
    (("data",), _compare_data),
    (("result",), _compare_results),
    (("metrics",), _compare_metrics),
)


def listed(found: Comparison, most: int) -> list[str]:
    """A line for each difference, at most so many a section, and for each section without one; in columns."""
    rows = []
    for section in get_args(Section):
        ours = [each for each in found.differences if each.section == section]
        texts = [(each.name, f"{each.old} -> {each.new}", each.note) for each in ours[:most]]
        texts += [(f"and {len(ours) - most} more", "", "")] if len(ours) > most else []
        unknown = found.unknown.get(section)
        texts = texts or [(f"not known: {unknown}" if unknown else "the same", "", "")]
        rows += [(section if number == 0 else "", *text) for number, text in enumerate(texts)]
    widths = [max((len(row[column]) for row in rows if row[column + 1]), default=0) for column in range(3)]
    return ["  ".join([*map(str.ljust, row, widths), row[3]]).rstrip() for row in rows]
