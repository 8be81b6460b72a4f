"""The differences between two runs: config, code, packages, hardware, data, results, rows of metrics.csv.

The files of a run may be untrusted: whatever they hold, the values that are shown are short and printable.
"""

import csv
import hashlib
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, Literal, get_args

from litlab.config.tree import flatten
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping
from litlab.runs.metrics import read_metrics
from litlab.runs.terminal import MAX_VALUE_LENGTH, format_value, value_to_text

Section = Literal["config", "code", "packages", "hardware", "data", "result", "metrics"]
ABSENT = "absent"
_MACHINE_KEYS = ("system", "processor", "cores", "python", "device", "ranks", "threads", "precision")

_OUTCOME: tuple[Section, ...] = ("result", "metrics")  # the other sections are inputs
_TIMED = "throughput/"  # prefix of metrics that measure the machine, not the experiment
_Rows = dict[tuple[int, int, int], float]  # (epoch, step, number of earlier rows with the same two) -> value


@dataclass(frozen=True)
class Difference:
    """One difference between two runs.

    Attributes:
        section: Part of the record that it belongs to.
        name: Key, package or metric.
        old, new: Values as they are shown; ABSENT where a run has none.
        note: For a metric: number of rows that differ, the first one, and the largest difference.
    """

    section: Section
    name: str
    old: str
    new: str
    note: str = ""


@dataclass
class RunDiff:
    """Differences between two runs.

    Attributes:
        differences: Differences in the order of the sections.
        unknown: Reason for each section, or for `weights`, that could not be compared.
        num_rows: Number of rows in metrics.csv of the first run, without those that measure the machine.
    """

    differences: list[Difference] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    num_rows: int = 0

    @property
    def identical(self) -> bool:
        """True if weights, metric rows and results are on record and equal to the last bit."""
        return "weights" not in self.unknown and not any(item.section in _OUTCOME for item in self.differences)

    @property
    def same_recipe(self) -> bool:
        """True if no input is known to differ."""
        return all(item.section in _OUTCOME for item in self.differences)


def diff_runs(old: RunDirectory, new: RunDirectory, *, strict: bool = True) -> RunDiff:
    """Compare two runs.

    Args:
        old: First run.
        new: Second run.
        strict: Raise if a file is missing or damaged; otherwise its section becomes `unknown`.

    Raises:
        UserError: If `strict` and a file of either run is missing or damaged.
    """
    diff = RunDiff()
    for sections, add_differences in _SECTIONS:
        try:
            add_differences(diff, old, new)
        except (UserError, RecursionError) as error:
            if strict:
                raise
            reason = str(error) if isinstance(error, UserError) else "its content is too deeply nested"
            diff.unknown |= dict.fromkeys(sections, reason)
    return diff


def diff_values(section: Section, old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Return the keys whose values differ or that only one mapping has, in the order of the first mapping."""
    return [
        Difference(section, format_value(key), *_format_pair(key, old, new))
        for key in {**old, **new}
        if key not in old or key not in new or not _is_same(old[key], new[key])
    ]


def format_diff(diff: RunDiff, max_lines: int) -> list[str]:
    """Format the differences in columns: at most `max_lines` for each section, one for a section without any."""
    rows = []
    for section in get_args(Section):
        items = [item for item in diff.differences if item.section == section]
        texts = [(item.name, f"{item.old} -> {item.new}", item.note) for item in items[:max_lines]]
        texts += [(f"and {len(items) - max_lines} more", "", "")] if len(items) > max_lines else []
        reason = diff.unknown.get(section)
        texts = texts or [(f"not known: {reason}" if reason else "the same", "", "")]
        rows += [(section if number == 0 else "", *text) for number, text in enumerate(texts)]
    widths = [max((len(row[column]) for row in rows if row[column + 1]), default=0) for column in range(3)]
    return ["  ".join([*map(str.ljust, row, widths), row[3]]).rstrip() for row in rows]


def _format_pair(key: str, old: dict[str, Any], new: dict[str, Any]) -> tuple[str, str]:
    """Format the two values of a key, with no more digits than tell them apart, and never as the same text."""
    if key not in old or key not in new:
        before, after = (format_value(values[key]) if key in values else ABSENT for values in (old, new))
        return before, after
    pair = old[key], new[key]
    if all(isinstance(value, float) for value in pair):
        for digits in range(6, 17):
            before, after = (f"{value:.{digits}g}" for value in pair)
            if before != after:
                return before, after
    texts = [value_to_text(value) for value in pair]
    if texts[0] == texts[1]:  # 0.1 and "0.1"
        texts = [repr(value) for value in pair]
    before, after = map(format_value, texts)
    if before == after:  # they differ beyond the part that is shown
        num_equal = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        start = max(num_equal - MAX_VALUE_LENGTH // 2, 0)
        before, after = (format_value("…" + text[start:]) for text in texts)
    return before, after


def _is_same(old: Any, new: Any) -> bool:
    """Compare to the last bit and the type: 1 is not 1.0, -0.0 is not 0.0, but NaN is NaN."""
    return repr(old) == repr(new)


def _diff_configs(diff: RunDiff, *runs: RunDirectory) -> None:
    diff.differences += diff_values("config", *(flatten(run.read_config()) for run in runs))


def _diff_code(diff: RunDiff, *runs: RunDirectory) -> None:
    """Compare commit, uncommitted changes and untracked sources of the project, and the version of litlab."""
    provenance = [run.read_mapping(run.provenance) for run in runs]
    codes = [as_mapping(record.get("code")) for record in provenance]
    versions = [as_mapping(as_mapping(record.get("machine")).get("packages")).get("litlab") for record in provenance]
    if not all(codes):
        diff.unknown["code"] = "there is no record of a git repository"
    elif not all(code.get("diff_complete") for code in codes):
        diff.unknown["code"] = "the uncommitted changes were too long to be recorded whole"
    facts = [_code_facts(code) | {"litlab": version} for code, version in zip(codes, versions, strict=True)]
    diff.differences += diff_values("code", *facts)


def _code_facts(code: dict[str, Any]) -> dict[str, str]:
    if not code:
        return {}
    untracked = {f"untracked {name}": text for name, text in as_mapping(code.get("untracked")).items()}
    texts = {"uncommitted changes": code.get("diff")} | untracked
    return {"commit": str(code.get("commit"))} | {name: _digest(text) for name, text in texts.items()}


def _digest(text: Any) -> str:
    """Shorten a text to its length and hash; a file that was recorded by its name alone has none."""
    if text is None:
        return "not recorded"
    if not text:
        return "none"
    digest, num_lines = hashlib.sha256(str(text).encode(errors="replace")).hexdigest(), str(text).count("\n")
    return f"{num_lines} lines ({digest[:8]})"


def _diff_machines(diff: RunDiff, *runs: RunDirectory) -> None:
    machines = [as_mapping(run.read_mapping(run.provenance).get("machine")) for run in runs]
    if not all(machines):
        diff.unknown |= dict.fromkeys(("packages", "hardware"), "there is no record of the machine")
        return
    packages = [as_mapping(machine.get("packages")) for machine in machines]
    others = [{name: version for name, version in installed.items() if name != "litlab"} for installed in packages]
    diff.differences += diff_values("packages", *others)
    hardware = [{key: machine.get(key) for key in _MACHINE_KEYS} for machine in machines]
    diff.differences += diff_values("hardware", *hardware)


def _diff_data(diff: RunDiff, *runs: RunDirectory) -> None:
    facts = [run.read_mapping(run.dataset) for run in runs]
    if not any(facts):
        diff.unknown["data"] = "data that litlab did not prepare have no fingerprint"
    diff.differences += diff_values("data", *facts)


def _diff_results(diff: RunDiff, *runs: RunDirectory) -> None:
    old, new = (_result_facts(as_mapping(run.read_json(run.result))) for run in runs)
    if not (old["weights"] and new["weights"]):
        diff.unknown["weights"] = "result.json holds no hash of them"
        del old["weights"], new["weights"]
    diff.differences += diff_values("result", old, new)


def _result_facts(result: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of result.json that depend on the experiment, not on the machine."""
    metrics = {
        f"{part} {name}": value
        for part in ("best", "last", "test")
        for name, value in as_mapping(result.get(part)).items()
        if not name.startswith(_TIMED)
    }
    return {key: result.get(key) for key in ("weights", "epochs", "steps", "parameters")} | metrics


def _diff_metrics(diff: RunDiff, *runs: RunDirectory) -> None:
    old, new = map(_rows_by_metric, runs)
    diff.num_rows = sum(map(len, old.values()))
    differences = (_diff_rows(metric, old.get(metric, {}), new.get(metric, {})) for metric in {**old, **new})
    diff.differences += filter(None, differences)


def _diff_rows(metric: str, old: _Rows, new: _Rows) -> Difference | None:
    """Compare the rows of a metric to the last bit; show its last values, or the last that differ."""
    keys = old.keys() | new.keys()
    different = [key for key in keys if not _is_same(old.get(key), new.get(key))]
    if not different:
        return None
    note = f"{len(different)} of {len(keys)} rows, the first at step {min(step for _, step, _ in different)}"
    last = [{metric: rows[max(rows)]} if rows else {} for rows in (old, new)]
    if _is_same(*last):
        key = max(different)
        last = [{metric: rows[key]} if key in rows else {} for rows in (old, new)]
        note += ", the last of them shown"
    gaps = [abs(old[key] - new[key]) for key in different if key in old and key in new]
    if gaps:
        note += f", by at most {max(gaps, key=lambda gap: math.inf if math.isnan(gap) else gap):.3g}"
    return Difference("metrics", format_value(metric), *_format_pair(metric, *last), note)


def _rows_by_metric(run: RunDirectory) -> dict[str, _Rows]:
    """Read the rows of metrics.csv except those that measure the machine."""
    if not run.metrics.exists():
        raise UserError(f"{run.metrics} is missing")
    try:
        rows = read_metrics(run.metrics)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{run.metrics} is damaged: {error}") from error
    num_earlier: Counter[tuple[int, int, str]] = Counter()
    metrics: dict[str, _Rows] = {}
    for row in rows:
        if not row.metric.startswith(_TIMED):
            key = (row.epoch, row.step, row.metric)
            metrics.setdefault(row.metric, {})[row.epoch, row.step, num_earlier[key]] = row.value
            num_earlier[key] += 1
    return metrics


_SECTIONS: tuple[tuple[tuple[Section, ...], Callable[[RunDiff, RunDirectory, RunDirectory], None]], ...] = (
    (("config",), _diff_configs),
    (("code",), _diff_code),
    (("packages", "hardware"), _diff_machines),
    (("data",), _diff_data),
    (("result",), _diff_results),
    (("metrics",), _diff_metrics),
)
