"""Answer of a decide study: a sentence, a table, the runs saved; kept in decision.json."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from litlab.config.schema import Objective
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import open_regular, write_json
from litlab.runs.metrics import Metric, read_metric_table
from litlab.runs.terminal import printable
from litlab.sweep.decide.decisions import Decisions
from litlab.sweep.decide.rounds import Comparison, Pair, Verdict, has_failed
from litlab.sweep.study import DECISION_FILE

BASELINE = "baseline"  # verdict of the baseline itself
NOT_COMPARED = "not compared"  # verdict of a setting whose baseline failed
_MAX_BYTES = 1 << 22
Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Checked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class Row(_Checked):
    """A setting in the table; differences are from the setting `against`."""

    name: str
    seeds: int
    mean: Finite | None
    against: str | None = None
    difference: Finite | None = None
    low: Finite | None = None
    high: Finite | None = None
    p: Finite | None = None
    pairs: int = 0
    verdict: str


class Answer(_Checked):
    """Contents of decision.json.

    Attributes:
        format: Number of the format.
        is_over: True if all is decided, or has all of its seeds.
        sentence: The answer in one sentence.
        clauses: A text for each decided comparison.
        metric: Name of the objective.
        unit: Its unit.
        alpha: Level of the study.
        caption: Method of the intervals and p-values.
        rows: The settings.
        notes: What a reader has to know about the validity.
        runs: Number of runs.
        fixed_runs: Number of runs with all seeds for each setting.
        fixed_design: Text of that.
    """

    format: Literal[1] = 1
    is_over: bool
    sentence: str
    clauses: list[str]
    metric: str
    unit: str
    alpha: Finite
    caption: str
    rows: list[Row]
    notes: list[str]
    runs: int
    fixed_runs: int
    fixed_design: str


def write_answer(study: Path, answer: Answer) -> None:
    """Write decision.json atomically."""
    write_json(study / DECISION_FILE, answer.model_dump())


def read_answer(study: Path) -> Answer | None:
    """Read decision.json; None if there is none.

    Raises:
        UserError: If it is damaged.
    """
    file = study / DECISION_FILE
    try:
        with open_regular(file) as opened:
            return Answer.model_validate(json.loads(opened.read(_MAX_BYTES)))
    except FileNotFoundError:
        return None
    except (OSError, RecursionError, ValueError) as error:
        raise UserError(f"{file} is damaged; the command of the study writes it again") from error


def find_metric(runs: Sequence[RunDirectory], objective: Objective) -> Metric:
    """Return the metric of the objective with its unit, as the first run that has logged it says."""
    for run in runs:
        metric = read_metric_table(run)[objective.metric]
        if metric != Metric(objective.metric):
            return metric
    return Metric(objective.metric)


def format_answer(answer: Answer) -> list[str]:
    """Format the answer for people, line by line."""
    metric = Metric(answer.metric, answer.unit)
    heads = ("setting", "seeds", answer.metric, "difference", f"{_confidence(answer.alpha)} sequence", "p", "")
    cells = [heads, *(_cells(row, metric) for row in answer.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["", answer.sentence, ""]
    for name, *numbers, verdict in cells:
        aligned = (cell.rjust(width) for cell, width in zip(numbers, widths[1:-1], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *aligned, verdict]).rstrip())
    lines += ["", answer.caption, *([_runs(answer)] if answer.is_over else [])]
    lines += [f"note: {note}" for note in answer.notes]
    return [printable(line) for line in lines]


def make_answer(
    decisions: Decisions, names: dict[str, str], objective: Objective, metric: Metric, num_runs: int
) -> Answer:
    """Make the answer from the decisions so far.

    Args:
        decisions: The decisions.
        names: Name of each setting by key.
        objective: What is decided by.
        metric: Its metric.
        num_runs: Number of runs that exist.
    """
    writer = _Writer(decisions, names, metric)
    seeds = decisions.seeds_max
    return Answer(
        is_over=decisions.is_over,
        sentence=writer.sentence(),
        clauses=writer.decided(),
        metric=objective.metric,
        unit=metric.unit,
        alpha=decisions.rule.alpha,
        caption=writer.caption(),
        rows=[writer.row(key) for key in names],
        notes=writer.notes(),
        runs=num_runs,
        fixed_runs=len(names) * seeds,
        fixed_design=f"{len(names)} settings with {seeds} seeds each",
    )


class _Writer:
    """Words of an answer."""

    def __init__(self, decisions: Decisions, names: dict[str, str], metric: Metric) -> None:
        self.decisions, self.names, self.metric, self.alpha = decisions, names, metric, decisions.rule.alpha
        self.pairs = list(dict.fromkeys(pair for family in decisions.families for pair in family.pairs))
        self.comparisons = {pair: decisions.comparison(pair)[0] for pair in self.pairs}

    def sentence(self) -> str:
        """Return the answer in one sentence."""
        clauses = self.decided() + self._within() + self._undecided() + self._failed()
        if not self.decisions.is_over:
            clauses = clauses or ["nothing is decided yet"]
            return f"so far, {'; '.join(clauses)}."
        return f"{'; '.join(clauses)}."

    def decided(self) -> list[str]:
        """Return a clause for each setting that is better or worse than another one."""
        clauses = []
        for pair in self._deciding():
            comparison = self.comparisons[pair]
            if self.decisions.baseline is None and comparison.verdict is Verdict.WORSE:
                clauses.append(self._clause((pair[1], pair[0]), comparison, Verdict.BETTER, -1))
            else:
                clauses.append(self._clause(pair, comparison, comparison.verdict, 1))
        return clauses

    def _deciding(self) -> list[Pair]:
        """Return the decided pairs: with a baseline all, else for each setting that is worse the best other one."""
        decided = [pair for pair in self.pairs if self.comparisons[pair].verdict in (Verdict.BETTER, Verdict.WORSE)]
        if self.decisions.baseline is not None:
            return decided
        best: dict[str, Pair] = {}
        for pair in decided:
            is_worse = self.comparisons[pair].verdict is Verdict.WORSE
            loser, winner = pair if is_worse else pair[::-1]
            if loser not in best or self._score(winner) > self._score(self._winner(best[loser], loser)):
                best[loser] = pair
        return list(best.values())

    @staticmethod
    def _winner(pair: Pair, loser: str) -> str:
        return pair[0] if pair[1] == loser else pair[1]

    def _clause(self, pair: Pair, comparison: Comparison, verdict: Verdict, sign: int) -> str:
        first, second = (self.names[key] for key in pair)
        return f"{first} is {verdict} than {second} ({self._numbers(comparison, sign)})"

    def _within(self) -> list[str]:
        pairs = [pair for pair in self.pairs if self.comparisons[pair].verdict is Verdict.WITHIN]
        delta = self._size(self.decisions.rule.delta or 0.0)
        return [
            f"{self.names[first]} is within {delta} of {self.names[second]} "
            f"({self._numbers(self.comparisons[first, second], 1)})"
            for first, second in pairs
        ]

    def _undecided(self) -> list[str]:
        clauses = []
        for pair in self.pairs:
            comparison = self.comparisons[pair]
            if comparison.is_open and comparison.num_rounds:
                first, second = (self.names[key] for key in pair)
                numbers = f" ({self._numbers(comparison, 1)})" if comparison.look is not None else ""
                seeds = "" if comparison.look is not None else f" after {comparison.num_rounds} seeds"
                clauses.append(f"{first} against {second} is undecided{seeds}{numbers}")
        return clauses

    def _failed(self) -> list[str]:
        failed = [key for key in self.names if has_failed(key, self.decisions.values)]
        return [f"the first runs of {self.names[key]} failed, so it is not compared" for key in failed]

    def row(self, key: str) -> Row:
        """Return the row of a setting."""
        values = self._values(key)
        name, mean = self.names[key], math.fsum(values) / len(values) if values else None
        pair = self._shown_pair(key)
        if pair is None:
            return Row(name=name, seeds=len(values), mean=mean, verdict=self._verdict(key))
        comparison = self.comparisons[pair]
        sign = 1 if pair[0] == key else -1
        row = Row(
            name=name, seeds=len(values), mean=mean, against=self.names[self._winner(pair, key)],
            verdict=self._verdict(key),
        )  # fmt: skip
        if (look := comparison.look) is None:
            return row
        low, high = sorted((sign * look.low, sign * look.high))
        update = {
            "difference": sign * look.mean, "low": _finite(low), "high": _finite(high), "p": comparison.corrected,
            "pairs": look.num,
        }  # fmt: skip
        return row.model_copy(update=update)

    def _shown_pair(self, key: str) -> Pair | None:
        """Return the pair whose difference a row shows: with the baseline, with what decided it, or with the best."""
        if self.decisions.baseline is not None:
            return next((pair for pair in self.pairs if pair[0] == key), None)
        for pair in self._deciding():
            if key in pair and self._loser(pair) == key:
                return pair
        leader = self._leader()
        if key == leader:
            return None
        return next((pair for pair in self.pairs if set(pair) == {key, leader}), None)

    def _loser(self, pair: Pair) -> str:
        return pair[0] if self.comparisons[pair].verdict is Verdict.WORSE else pair[1]

    def _leader(self) -> str:
        left = [key for key in self.names if key not in self._losers()]
        return max(left or list(self.names), key=self._score)

    def _losers(self) -> set[str]:
        return {self._loser(pair) for pair in self._deciding()}

    def _verdict(self, key: str) -> str:
        if has_failed(key, self.decisions.values):
            return str(Verdict.FAILED)
        if key == self.decisions.baseline:
            return BASELINE
        if self.decisions.baseline is not None:
            verdict = self.comparisons[key, self.decisions.baseline].verdict
            return NOT_COMPARED if verdict is Verdict.FAILED else str(verdict)
        if key in self._losers():
            return str(Verdict.WORSE)
        verdicts = {
            comparison.verdict
            for pair, comparison in self.comparisons.items()
            if key in pair and comparison.verdict not in (Verdict.DROPPED, Verdict.FAILED)
        }
        if Verdict.UNDECIDED in verdicts:
            return str(Verdict.UNDECIDED)
        if Verdict.WITHIN in verdicts:
            return str(Verdict.WITHIN)
        return "best" if verdicts else str(Verdict.UNDECIDED)

    def _values(self, key: str) -> list[float]:
        """Return the values of a setting in the rounds that needed them."""
        num = max((self.comparisons[pair].num_rounds for pair in self.pairs if key in pair), default=0)
        found = (self.decisions.values.get((key, index)) for index in range(num))
        return [value for value in found if value is not None]

    def _score(self, key: str) -> float:
        values = self._values(key)
        mean = math.fsum(values) / len(values) if values else -math.inf
        return mean if self.decisions.rule.higher_is_better or not values else -mean

    def caption(self) -> str:
        """Return the method of the intervals and p-values."""
        families = ", and for ".join(
            f"{len(family.pairs)} comparison{'s' * (len(family.pairs) != 1)}, decided at {family.alpha:.3g}"
            for family in self.decisions.families
        )
        return (
            f"paired by seed; sequential t test, valid at each number of seeds; p corrected by Holm for {families}; "
            f"{_confidence(self.alpha)} sequences for one comparison"
        )

    def notes(self) -> list[str]:
        """Return what a reader has to know about the validity."""
        notes = []
        for pair in self.pairs:
            comparison = self.comparisons[pair]
            names = " and ".join(self.names[key] for key in pair)
            if comparison.num_left_out and comparison.verdict is not Verdict.FAILED:
                notes.append(
                    f"{names}: {comparison.num_left_out} of {comparison.num_rounds} seeds are left out, since a run "
                    "failed or diverged; leaving out seeds by their outcome favors the setting that fails"
                )
            if not comparison.has_spread:
                notes.append(
                    f"{names} have the same difference with each seed, so there is no test; if it is 0, the setting "
                    "changes nothing"
                )
        return notes + [self._family_note(index) for index in range(1, len(self.decisions.families))]

    def _family_note(self, index: int) -> str:
        family = self.decisions.families[index]
        before = {key for earlier in self.decisions.families[:index] for key in earlier.settings}
        if family.extends is None:
            added = [self.names[key] for key in family.settings if key not in before]
            subject = f"{', '.join(added)}: added later, and"
        else:
            horizon = self.decisions.families[family.extends].horizon
            tested = [pair for pair in family.pairs if pair not in family.within]
            pairs = ", ".join(f"{self.names[first]} and {self.names[second]}" for first, second in tested)
            subject = (
                f"{pairs}: undecided at the planned {horizon} seeds; with more seeds the test is open-ended (it needs "
                "a clearer difference than one that had been planned for more seeds), and"
            )
        alpha, reserve = self.alpha, self.decisions.reserve
        if family.source == "reserve":
            return f"{subject} tested at {family.alpha:.3g}, the share of alpha={alpha:.3g} that was reserved"
        reason = "the reserved share is spent" if reserve else "no share is reserved"
        return (
            f"{subject} tested as a new family at {family.alpha:.3g}, since {reason}; the chance of any false "
            f"difference in this study is at most {self.decisions.error_rate:.3g} now"
        )

    def _numbers(self, comparison: Comparison, sign: int) -> str:
        look = comparison.look
        assert look is not None
        low, high = sorted((sign * look.low, sign * look.high))
        parts = [f"{_signed(self.metric, sign * look.mean)}{_points(self.metric)}"]
        if math.isfinite(low) and math.isfinite(high):
            bounds = f"{_signed(self.metric, low)} to {_signed(self.metric, high)}"
            parts.append(f"{_confidence(self.alpha)} sequence {bounds}")
        parts += [_p_value(comparison.corrected), f"{look.num} seeds"]
        return ", ".join(parts)

    def _size(self, value: float) -> str:
        return f"{self.metric.scale * value:g}{_points(self.metric)}"


def _runs(answer: Answer) -> str:
    saved = max(answer.fixed_runs - answer.runs, 0)
    design = f"{answer.fixed_runs} ({answer.fixed_design})"
    return f"{_count(answer.runs)} instead of {design}: {_count(saved)} saved"


def _count(num: int) -> str:
    return f"{num} run{'s' * (num != 1)}"


def _cells(row: Row, metric: Metric) -> tuple[str, ...]:
    mean = "" if row.mean is None else metric.format(row.mean)
    difference = "" if row.difference is None else _signed(metric, row.difference)
    interval = ""
    if row.low is not None and row.high is not None:
        interval = f"[{_signed(metric, row.low)}, {_signed(metric, row.high)}]"
    p = "" if row.p is None else _p_value(row.p).removeprefix("p=").removeprefix("p")
    verdict = row.verdict
    if row.against is not None and row.verdict in (Verdict.BETTER, Verdict.WORSE):
        verdict = f"{row.verdict} than {row.against}"
    return row.name, str(row.seeds), mean, difference, interval, p, verdict


def _signed(metric: Metric, value: float) -> str:
    """Format a difference without its unit, never -0."""
    if metric.unit == "%":
        return f"{100 * value:+z.2f}"
    number = Metric(metric.name).format(abs(value))  # without the unit
    return ("-" if value < 0 and float(number.replace(",", "")) else "+") + number


def _points(metric: Metric) -> str:
    return " points" if metric.unit == "%" else f" {metric.unit}".rstrip()


def _p_value(p: float) -> str:
    return "p<0.0001" if p < 0.0001 else f"p={p:.2g}"


def _confidence(alpha: float) -> str:
    return f"{100 * (1 - alpha):g} %"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
