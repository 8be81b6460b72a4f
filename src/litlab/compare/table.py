"""The table of a comparison: a registry of columns that all formats, the page and `--sort` use, and its caption.

A new column is one entry of `COLUMNS`.
"""

import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

from litlab.compare.data_model import Comparison, Design, Difference, Group, Summary
from litlab.compare.setting_names import parsed, shorten
from litlab.compare.summaries import interval_method
from litlab.errors import UserError
from litlab.runs.metrics import Metric, MetricTable, Mode
from litlab.runs.state import RunStatus
from litlab.runs.terminal import format_duration, format_value, printable
from litlab.statistics.student_t import CONFIDENCE

MEAN = "mean"
INTERVAL = f"{100 * CONFIDENCE:.0f} % interval"
TIED = "the best group, and groups whose interval for the mean reaches that of the best"
MAX_DECIMALS = 8
MAX_DECIMALS_OF_PERCENT = 4
LONGEST = 1e9  # from here on, numbers have an exponent
_AT = {"best": "where the objective was best", "last": "after the last epoch"}
_TESTS = {
    "paired": "paired by {unit} ({test} of the pairs; effect: Cohen's d of the pairs)",
    "welch": "unpaired (Welch's {test}; effect: Hedges' g)",
}
Value = float | str | None
Getter = Callable[[Group], Value]


@dataclass(frozen=True)
class Column:
    """One column of a comparison, in every format.

    A column without text in any group is left out of tables; CSV and JSON have its values nevertheless.

    Attributes:
        header: Text above its cells.
        value: Value of a group in full precision: it sorts the HTML page and `--sort`.
        text: Cell of a group as people read it.
        over: Text above the headers of neighboring columns, of which it is a part.
        key: Name in messages; by default the header.
        data: Names and values in CSV and JSON; by default the value under the key.
        sort: Names that `--sort` has for it.
        mode: Values that come first in `--sort`: large or small ones.
        is_number: True for numbers, aligned at the right; else cells are names and values from the files of runs.
        marks_ties: True if it shows which groups are tied with the best.
        is_summarized: True if it moves below the table when all groups have the same.
        drop_rank: Order in which a narrow terminal drops columns, the smallest first; 0: never.
        latex: LaTeX tables that have room for it: `always`, `alone` (without differences from a baseline) or `never`.
    """

    header: str
    value: Getter
    text: Callable[[Group], str] = lambda group: ""
    over: str = ""
    key: str = ""
    data: Mapping[str, Getter] | None = None
    sort: tuple[str, ...] = ()
    mode: Mode = "min"
    is_number: bool = True
    marks_ties: bool = False
    is_summarized: bool = False
    drop_rank: int = 0
    latex: Literal["always", "alone", "never"] = "always"

    @property
    def name(self) -> str:
        """Key, or else the header."""
        return self.key or self.header

    @property
    def title(self) -> str:
        """Header for tables with a single line of headers."""
        return self.over if self.header == MEAN else self.header

    def values(self, group: Group) -> dict[str, Value]:
        """Return its names and values of a group in CSV and JSON."""
        getters = {self.name: self.value} if self.data is None else self.data
        return {name: get(group) for name, get in getters.items()}


@dataclass(frozen=True)
class Table:
    """The columns of a comparison that have text, as people read them.

    Attributes:
        name: Name of the directory that was compared, the first of several.
        cells: Texts of each column, one for each group.
        ties: True for each group that is the best or tied with it; all False if there is one group, or if the best has
            no interval.
        caption: Sentences that explain the numbers.
        notes: Remarks, one a line.
    """

    name: str
    columns: tuple[Column, ...]
    cells: tuple[tuple[str, ...], ...]
    ties: tuple[bool, ...]
    caption: tuple[str, ...]
    notes: tuple[str, ...]


def _getter(source: Callable[[Group], object], attribute: str) -> Getter:
    """Return a function from a group to an attribute of its summary or difference; None if it has none."""
    return lambda group: getattr(source(group), attribute, None)


def _setting_column(comparison: Comparison, label: str) -> Column:
    short = shorten(group.settings.get(label) for group in comparison.groups)
    return Column(
        format_value(label),
        lambda group: group.settings.get(label),
        lambda group: format_value(short[group.settings[label]]) if label in group.settings else "",
        data={printable(label): lambda group: printable(group.settings.get(label, ""))},
        sort=(label, comparison.keys.get(label, label)),
        is_number=False,
    )


def _metric_columns(comparison: Comparison) -> Iterable[Column]:
    yield from _summary_columns(comparison, comparison.metric, lambda group: group.value, "value")
    if not comparison.is_ablation:
        yield Column("tied with the best", lambda group: int(group.name in comparison.ties))


def _test_columns(comparison: Comparison) -> Iterable[Column]:
    test = comparison.test_metric
    mean, interval, best = _summary_columns(comparison, test, lambda group: group.test.get(test.name), "test")
    return [replace(mean, marks_ties=False), interval, replace(best, text=lambda group: "")]


def _summary_columns(
    comparison: Comparison, metric: Metric, summary: Callable[[Group], Summary | None], part: str
) -> list[Column]:
    """Return the columns of mean with deviation, interval, and best; with the same decimals in all of them."""
    scale, name = metric.scale, printable(metric.name)
    places = decimals(metric, map(summary, comparison.groups))
    over = format_value(metric.name) + (f" ({metric.unit})" if metric.unit else "")
    get = {attribute: _getter(summary, attribute) for attribute in ("num", "mean", "deviation", "low", "high", "best")}
    num = get["num"]
    get["num"] = lambda group: num(group) or 0

    def data(*attributes: str) -> dict[str, Getter]:
        return {f"{name} {attribute}": get[attribute] for attribute in attributes}

    def mean_text(group: Group) -> str:
        deviation = _number(get["deviation"](group), scale, places)
        return _number(get["mean"](group), scale, places) + (f" ± {deviation}" if deviation else "")

    return [
        Column(
            MEAN, get["mean"], mean_text, over, name, data("num", "mean", "deviation"), (metric.name,),
            mode=metric.mode or "max", marks_ties=True,
        ),
        Column(
            INTERVAL, get["low"], lambda group: _interval(summary(group), scale, places), over, f"{part} interval",
            data("low", "high"), drop_rank=4 * (part == "test"), latex="never" if part == "test" else "alone",
        ),
        Column(
            "best", get["best"], lambda group: _number(get["best"](group), scale, places), over,
            data=data("best"), drop_rank=5, latex="never",
        ),
    ]  # fmt: skip


def _difference_columns(comparison: Comparison) -> Iterable[Column]:
    if comparison.baseline is None:
        return
    columns = [*tested_columns(comparison, "difference", lambda group: group.difference)]
    yield from columns

    def kind_text(group: Group) -> str:
        return {"paired": "paired", "welch": "unpaired"}[group.difference.kind] if group.difference else ""

    if len(_kinds(comparison)) > 1:
        yield Column("compared", kind_text, kind_text, columns[0].over, data={}, is_number=False, latex="alone")


def tested_columns(
    comparison: Comparison, name: str, difference: Callable[[Group], Difference | None]
) -> Iterable[Column]:
    """Yield the columns of a tested difference: mean, interval, p and effect.

    Args:
        comparison: Comparison with the metric.
        name: Name of the difference, which stands over the columns.
        difference: Difference of a group.
    """
    metric, scale = comparison.metric, comparison.metric.scale
    places = decimals(metric, (group.value for group in comparison.groups))
    over = name + (f" ({unit})" if (unit := unit_of_differences(metric)) else "")
    get = {field.name: _getter(difference, field.name) for field in fields(Difference)}

    def mean_text(group: Group) -> str:
        return "baseline" if group.name == comparison.baseline else _number(get["mean"](group), scale, places, "+")

    data = {f"{name} {attribute}": getter for attribute, getter in get.items()}
    yield Column(MEAN, get["mean"], mean_text, over, name, data, (name,), metric.mode or "max")
    yield Column(
        INTERVAL, get["low"], lambda group: _interval(difference(group), scale, places, "+"), over,
        f"{name} interval", {},
    )  # fmt: skip
    yield Column("p", get["corrected"], lambda group: _p_text(difference(group)), over, data={}, sort=("p",))
    yield Column("effect", get["effect"], lambda group: _number(get["effect"](group), 1, 2, "+"), over, data={})


def _p_text(difference: Difference | None) -> str:
    p = difference.corrected if difference else None
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def unit_of_differences(metric: Metric) -> str:
    """Return the unit of differences of a metric: `points` for percentages."""
    return "points" if metric.unit == "%" else metric.unit


def _status_columns(comparison: Comparison) -> Iterable[Column]:
    return [
        Column(status.value, lambda group, status=status: group.others.get(status, 0))  # type: ignore[misc]
        for status in RunStatus
        if status != RunStatus.COMPLETED
    ]


def not_completed(group: Group) -> str:
    """Count the runs of a group that are not completed: `failed 1, pruned 2`."""
    return ", ".join(f"{status.label} {group.others[status]}" for status in RunStatus if group.others.get(status))


_num = _getter(lambda group: group.value, "num")
_seconds = _getter(lambda group: group.seconds, "mean")
_speed = _getter(lambda group: group.images_per_second, "mean")
COLUMNS: tuple[Column | Callable[[Comparison], Iterable[Column]], ...] = (
    Column("group", lambda group: group.name, data={"group": lambda group: printable(group.name)}, sort=("name",)),
    lambda comparison: [_setting_column(comparison, label) for label in comparison.labels],
    Column("n", lambda group: _num(group) or 0, lambda group: str(_num(group) or 0), data={}, sort=("n",), mode="max"),
    _metric_columns,
    _test_columns,
    _difference_columns,
    Column(
        "training time", _seconds, lambda group: format_duration(group.seconds.mean) if group.seconds else "",
        data={"training seconds mean": _seconds}, sort=("time",), is_summarized=True, drop_rank=3, latex="never",
    ),
    Column(
        "images/s", _speed, lambda group: f"{group.images_per_second.mean:.0f}" if group.images_per_second else "",
        data={"images per second mean": _speed}, sort=("images/s",), mode="max", is_summarized=True, drop_rank=1,
        latex="never",
    ),
    Column(
        "parameters", lambda group: group.parameters,
        lambda group: "" if group.parameters is None else f"{group.parameters:,}",
        sort=("parameters",), is_summarized=True, drop_rank=2, latex="alone",
    ),
    Column(
        "trainable", lambda group: group.trainable_parameters,
        lambda group: f"{group.trainable_parameters:,}" if group.has_frozen_parameters else "",
        data={"trainable parameters": lambda group: group.trainable_parameters}, is_summarized=True, drop_rank=2,
        latex="never",
    ),
    Column("not completed", not_completed, not_completed, data={}, is_number=False, latex="never"),
    _status_columns,
)  # fmt: skip


def columns_of(comparison: Comparison) -> list[Column]:
    """Return all columns of a comparison in their order."""
    entries = ([entry] if isinstance(entry, Column) else entry(comparison) for entry in COLUMNS)
    return [column for columns in entries for column in columns]


def build_table(comparison: Comparison, leave_out: Callable[[Column], bool] = lambda column: False) -> Table:
    """Build the table of the columns that have text, without those that are to be left out."""
    pairs = [(column, tuple(map(column.text, comparison.groups))) for column in columns_of(comparison)]
    pairs = [(column, cells) for column, cells in pairs if any(cells) and not leave_out(column)]
    keys = {column.name for column, _ in pairs}
    once = [pair for pair in pairs if pair[0].is_summarized and len(pair[1]) > 1 and len(set(pair[1])) == 1]
    same = ", ".join(f"{column.header} {cells[0]}" for column, cells in once)
    shown = [pair for pair in pairs if pair not in once]
    is_marked = len(comparison.groups) > 1 and comparison.best is not None and comparison.best.has_interval
    skipped = [f"Skipped {entry.path}: {entry.reason}" for entry in comparison.skipped]
    return Table(
        name=comparison.directories[0].resolve().name if comparison.directories else "",
        columns=tuple(column for column, _ in shown),
        cells=tuple(cells for _, cells in shown),
        ties=tuple(is_marked and group.name in comparison.ties for group in comparison.groups),
        caption=(*_caption(comparison, keys), *([f"The same in all groups: {same}."] if same else [])),
        notes=tuple(map(printable, (*comparison.notes, *skipped))),
    )


def sort_groups(comparison: Comparison, sort: str, table: MetricTable) -> tuple[Group, ...]:
    """Sort groups by a column; groups that are equal there keep their order.

    Args:
        comparison: Comparison with the groups.
        sort: Name of a column for `--sort`, or a test metric.
        table: Metrics of the runs by name.

    Raises:
        UserError: If there is no such column.
    """
    columns = [column for column in columns_of(comparison) if column.sort]
    for name in sorted({name for group in comparison.groups for name in group.test}):
        value = _getter(lambda group, name=name: group.test.get(name), "mean")  # type: ignore[misc]
        columns.append(Column(name, value, sort=(name,), mode=table[name].mode or "max"))
    column = next((column for column in columns if sort in column.sort), None)
    if column is None:
        expected = ", ".join(map(format_value, dict.fromkeys(column.sort[0] for column in columns)))
        raise UserError(f"--sort {format_value(sort)}: no such column; expected one of {expected}")
    value, mode = column.value, column.mode
    return tuple(sorted(comparison.groups, key=lambda group: _sort_key(value(group), mode)))


def _sort_key(value: Value, mode: Mode) -> tuple[int, float, str]:
    """Sort numbers, then texts, then missing values; texts of numbers count as numbers."""
    if value is None:
        return 2, 0.0, ""
    number = parsed(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        return 1, 0.0, str(value)
    return 0, -number if mode == "max" else number, str(value)


def decimals(metric: Metric, summaries: Iterable[Summary | None]) -> int:
    """Return the decimals of a column: two significant digits of the median deviation; without one, as is usual."""
    finite = [summary for summary in summaries if summary is not None and math.isfinite(summary.mean)]
    is_percent = metric.unit == "%"
    deviations = [summary.deviation for summary in finite if summary.deviation and math.isfinite(summary.deviation)]
    if deviations:
        places = 1 - _exponent(metric.scale * statistics.median_low(deviations))
    elif is_percent or not any(summary.mean for summary in finite):
        places = 2
    else:
        places = 3 - _exponent(max(abs(summary.mean) for summary in finite))
    return min(max(places, 0), MAX_DECIMALS_OF_PERCENT if is_percent else MAX_DECIMALS)


def _exponent(value: float) -> int:
    """Return the decimal exponent of a value once it is rounded to two digits."""
    return int(f"{value:.1e}".partition("e")[2])


def fixed(value: float, places: int, sign: str = "") -> str:
    """Format a number with fixed decimals; never -0.00."""
    return f"{value:{sign}z.{places}f}" if abs(value) < LONGEST else f"{value:{sign}.4g}"


def with_unit(metric: Metric, value: float, places: int) -> str:
    """Format a value of a metric with fixed decimals: `84.5 %`."""
    return f"{fixed(metric.scale * value, places)} {metric.unit}".rstrip()


def _number(value: Value, scale: float, places: int, sign: str = "") -> str:
    return fixed(scale * value, places, sign) if isinstance(value, int | float) else ""


def _interval(value: Summary | Difference | None, scale: float, places: int, sign: str = "") -> str:
    if value is None or value.low is None or value.high is None:
        return ""
    return f"[{fixed(scale * value.low, places, sign)}, {fixed(scale * value.high, places, sign)}]"


def _caption(comparison: Comparison, keys: Collection[str]) -> list[str]:
    """Explain the numbers of a table that has the columns with these keys."""
    groups, metric, test = comparison.groups, comparison.metric, comparison.test_metric
    better = "higher" if comparison.mode == "max" else "lower"
    at = _AT.get(comparison.at, f"at {format_value(comparison.at)}")
    units = sorted({group.unit for group in groups})
    over = "runs" if "run" in units else " or ".join(f"{unit}s" for unit in units)
    values = [value for group in groups for value in (group.value, group.test.get(test.name)) if value is not None]
    spread = " ± sample standard deviation" if any(value.deviation is not None for value in values) else ""
    best = f"; best: of the {over}" if "best" in keys else ""
    lines = [f"{format_value(metric.name)} {at} ({better} is better): mean{spread} over n {over}{best}."]
    if any(value.low is not None for value in values):
        method = interval_method(metric)
        lines.append(f"Intervals: {100 * CONFIDENCE:.0f} %, {method} over {over}, for the mean.")
    lines += _caption_of_differences(comparison, keys)
    if "fold" in units:
        has_seeds = any(len({run.seed for run in group.runs}) > 1 for group in groups if group.unit == "fold")
        lines.append(
            f"The unit is the fold: n counts folds{', each averaged over its seeds' * has_seeds}. Folds share training "
            "images, so intervals over them tend to be too narrow, and p too small."
        )
    statuses = sum((Counter(group.others) for group in groups), Counter[RunStatus]())
    if statuses and "not completed" not in keys:
        counts = ", ".join(f"{statuses[status]} {status.label}" for status in RunStatus if status in statuses)
        lines.append(f"Runs that are not completed are not averaged: {counts}.")
    return lines


def _caption_of_differences(comparison: Comparison, keys: Collection[str]) -> list[str]:
    kinds = _kinds(comparison)
    if comparison.baseline is None or not kinds:
        return []
    unit = next((group.unit for group in comparison.groups if group.name == comparison.baseline), "seed")
    test = "sequential t-test" if comparison.design.is_sequential else "t-test"
    tests = " or ".join(_TESTS[kind].format(unit=unit, test=test) for kind in kinds)
    start = f"Differences: from {printable(comparison.baseline)}, {tests}"
    if len(kinds) > 1 and "compared" not in keys:
        unpaired = [group.name for group in comparison.groups if group.difference and group.difference.kind == "welch"]
        start += f"; unpaired: {printable('; '.join(unpaired))}"
    num = sum(group.difference is not None and group.difference.p is not None for group in comparison.groups)
    if not num:
        return [f"{start}; nothing could be tested."]
    corrected = f"corrected by Holm for {num} comparison{'s' * (num != 1)}"
    design = comparison.design
    if design.is_sequential:
        intervals = "the intervals of differences are a confidence sequence, not corrected"
        p = f"two-sided, the smallest so far, {corrected}"
        return [f"{start}; p: {p}; {intervals}.", *_caption_of_design(design)]
    method = " (Student's t)" if interval_method(comparison.metric) != "Student's t" else ""
    intervals = f"the intervals of differences{method} are not corrected"
    return [f"{start}; p: two-sided, {corrected}; {intervals}.", *_caption_of_design(design)]


def _caption_of_design(design: Design) -> list[str]:
    """Say which test it is, and why."""
    if not design.reason:
        return []
    if design.is_sequential:
        seeds = "any number of seeds" if design.horizon is None else f"up to {design.horizon} planned seeds"
        sentence = f"Test: sequential over {seeds}, valid at every look ({design.reason})."
    else:
        sentence = f"Test: of a fixed number of seeds; {design.reason}."
    return [f"{sentence} {design.warning}".rstrip()]


def _kinds(comparison: Comparison) -> list[str]:
    """Return how groups are compared with the baseline."""
    return sorted({group.difference.kind for group in comparison.groups if group.difference})
