"""Rounds of a decide study: which pairs of settings are decided, and which runs are needed next.

Round r tests the undecided pairs on their first r seeds, once all of these runs have ended. So the decisions depend on
the values alone, not on the order in which runs end, on crashes or on the number of workers. Nothing here knows files
or jobs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from litlab.statistics.sequential import Look, paired_looks
from litlab.statistics.student_t import holm

MIN_PAIRS = 3  # before anything is decided
MAX_FAILURES = 3  # of the first seeds of a setting, all of which failed

Run = tuple[str, int]  # key of a setting, index of its seed
Source = Literal["first", "reserve", "new"]
Pair = tuple[str, str]  # keys of a setting and of the one that it is compared with
Values = Mapping[Run, float | None]  # of the runs that have ended; None for one without a value
# (differences of the pairs, horizon, level, largest value that was subtracted, whether no pair is still to come)
# -> looks at 2, 3, ... pairs
Looks = Callable[[Sequence[float], int | None, float, float, bool], Sequence[Look]]


def looks_of(gains: Sequence[float], horizon: int | None, level: float, scale: float, is_last: bool) -> Sequence[Look]:
    """Test the differences of pairs; see `paired_looks`."""
    return paired_looks(gains, horizon, level, scale=scale, is_last=is_last)


class Verdict(StrEnum):
    """Result of a comparison, from the view of the first of its two settings.

    Attributes:
        BETTER: Better, by the test.
        WORSE: Worse, by the test.
        WITHIN: The difference is smaller than `delta`.
        UNDECIDED: None of these.
        DROPPED: None of these, since one of the two is worse than another setting.
        FAILED: The first runs of one of the two failed.
    """

    BETTER = "better"
    WORSE = "worse"
    WITHIN = "within delta"
    UNDECIDED = "undecided"
    DROPPED = "not compared further"
    FAILED = "failed"


@dataclass(frozen=True)
class Rule:
    """Parameters of the decisions.

    Attributes:
        alpha: Level of the intervals, and of the study.
        delta: Smallest difference that matters; None if each does.
        higher_is_better: Direction of the objective.
        drops_worse: Whether a setting that is worse than another one is not run further (racing).
    """

    alpha: float
    delta: float | None
    higher_is_better: bool
    drops_worse: bool


@dataclass(frozen=True)
class Family:
    """Comparisons that share an error rate.

    Attributes:
        pairs: The comparisons.
        horizon: Largest number of seeds, for which the test is planned; None for an open-ended test.
        alpha: Probability of at least one false difference, at most; of one that is wrongly within delta, as well.
        source: Where that comes from: the level of the study without the reserved share, the reserved share, or
            nowhere, so that it adds to the error rate of the study.
        extends: Number of the family whose undecided comparisons these are; None for new ones.
        within: Those of the pairs that the extended family has found within `delta`. They count as comparisons and are
            not tested further: without them, the level would depend on the values.
    """

    pairs: tuple[Pair, ...]
    horizon: int | None
    alpha: float
    source: Source = "first"
    extends: int | None = None
    within: tuple[Pair, ...] = ()

    @property
    def settings(self) -> list[str]:
        """Keys of the settings in the pairs, in their order."""
        return list(dict.fromkeys(key for pair in self.pairs for key in pair))


@dataclass
class Comparison:
    """State of a comparison.

    Attributes:
        verdict: The verdict so far.
        look: Newest look; None with fewer than two pairs.
        corrected: P-value by Holm, to be compared with the level of the family.
        num_rounds: Number of rounds in which its runs were needed.
        num_left_out: Number of seeds that are left out, since a run of theirs has no value.
        sign: Sign of the difference at the look that has the smallest p-value.
        simultaneous: Newest look at the level of one of all comparisons, which decides by `delta`.
    """

    verdict: Verdict = Verdict.UNDECIDED
    look: Look | None = None
    corrected: float = 1.0
    num_rounds: int = 0
    num_left_out: int = 0
    sign: float = 0.0
    simultaneous: Look | None = None

    @property
    def is_open(self) -> bool:
        """True if more seeds could decide it."""
        return self.verdict is Verdict.UNDECIDED

    @property
    def has_spread(self) -> bool:
        """False if the differences of the pairs are all the same, so that there is no test."""
        return self.look is None or self.look.num < MIN_PAIRS or math.isfinite(self.look.low)


class Rounds:
    """Rounds of a family.

    Args:
        family: The comparisons.
        rule: Parameters of the decisions.
        limit: Largest number of rounds.
        looks: Test of the pairs' differences.

    Attributes:
        num: Number of complete rounds.
        comparisons: State by pair.
    """

    def __init__(self, family: Family, rule: Rule, limit: int, looks: Looks = looks_of) -> None:
        self.family, self.rule, self.limit = family, rule, limit
        self.num = 0
        self.comparisons = {
            pair: Comparison(Verdict.WITHIN if pair in family.within else Verdict.UNDECIDED) for pair in family.pairs
        }
        self._looks = looks

    @property
    def open_pairs(self) -> list[Pair]:
        """Comparisons that are undecided."""
        return [pair for pair, comparison in self.comparisons.items() if comparison.is_open]

    @property
    def is_over(self) -> bool:
        """True if all is decided, or the last round is complete."""
        return self.num >= self.limit or not self.open_pairs

    def advance(self, values: Values) -> bool:
        """Complete the next round if all of its runs have ended; return False if they have not."""
        if self.is_over or any((key, self.num) not in values for key in self.active()):
            return False
        self.num += 1
        for pair in self.open_pairs:
            self._look(pair, values)
        self._close_failed(values)
        self._decide()
        return True

    def active(self) -> list[str]:
        """Return the settings of undecided pairs."""
        return list(dict.fromkeys(key for pair in self.open_pairs for key in pair))

    def distance(self, key: str) -> float:
        """Return how far a setting is from a decision, for the order of its runs; below about 1 it is decided."""
        distances = [self._distance(self.comparisons[pair]) for pair in self.open_pairs if key in pair]
        return min(distances, default=math.inf)

    def _distance(self, comparison: Comparison) -> float:
        look, simultaneous, delta = comparison.look, comparison.simultaneous, self.rule.delta
        if look is None or not look.mean:
            return math.inf
        distance = (look.high - look.low) / 2 / abs(look.mean)
        if simultaneous is None or delta is None:
            return distance
        return min(distance, max(abs(simultaneous.low), abs(simultaneous.high)) / delta)

    def _close_failed(self, values: Values) -> None:
        if self.num < MAX_FAILURES:
            return
        for pair in self.open_pairs:
            if any(has_failed(key, values) for key in pair):
                self.comparisons[pair].verdict = Verdict.FAILED

    def _look(self, pair: Pair, values: Values) -> None:
        gains, scale = [], 0.0
        for index in range(self.num):
            value, other = values[pair[0], index], values[pair[1], index]
            if value is not None and other is not None:
                gains.append(value - other)
                scale = max(scale, abs(value), abs(other))
        comparison = self.comparisons[pair]
        comparison.num_rounds = self.num
        comparison.num_left_out = self.num - len(gains)
        if len(gains) < 2:
            return
        horizon = self.family.horizon
        is_last = self.num == horizon  # also with fewer pairs, since runs failed
        looks = self._looks(gains, horizon, self.rule.alpha, scale, is_last)
        comparison.look = looks[-1]
        comparison.sign = math.copysign(1.0, min(looks, key=lambda look: look.p).mean)
        if self.rule.delta is not None:
            level = self.family.alpha / len(self.family.pairs)  # Bonferroni's
            comparison.simultaneous = self._looks(gains, horizon, level, scale, is_last)[-1]

    def _decide(self) -> None:
        """Decide by Holm over the whole family, then by delta; drop the settings that are worse."""
        for pair, corrected in self._corrected().items():
            comparison = self.comparisons[pair]
            if not comparison.is_open or comparison.look is None or comparison.look.num < MIN_PAIRS:
                continue
            comparison.corrected = corrected
            if self._is_within_delta(comparison):
                comparison.verdict = Verdict.WITHIN
            elif corrected <= self.family.alpha:
                is_better = (comparison.sign > 0) == self.rule.higher_is_better
                comparison.verdict = Verdict.BETTER if is_better else Verdict.WORSE
        if self.rule.drops_worse:
            dropped = self.worse()
            for pair in self.open_pairs:
                if any(key in dropped for key in pair):
                    self.comparisons[pair].verdict = Verdict.DROPPED

    def worse(self) -> dict[str, Pair]:
        """Return the settings that are worse than another one, with the pair that decided it."""
        found: dict[str, Pair] = {}
        for pair, comparison in self.comparisons.items():
            if comparison.verdict is Verdict.WORSE:
                found.setdefault(pair[0], pair)
            elif comparison.verdict is Verdict.BETTER:
                found.setdefault(pair[1], pair)
        return found

    def _is_within_delta(self, comparison: Comparison) -> bool:
        look, delta = comparison.simultaneous, self.rule.delta
        return look is not None and delta is not None and -delta <= look.low and look.high <= delta

    def _corrected(self) -> dict[Pair, float]:
        """Correct the p-values of the family by Holm.

        They only ever fall, so what is rejected stays rejected. The p-value of a decided pair stays what it was.
        """
        looks = {pair: comparison.look for pair, comparison in self.comparisons.items()}
        return holm({pair: look.p if look and look.num >= MIN_PAIRS else 1.0 for pair, look in looks.items()})


def has_failed(key: str, values: Values) -> bool:
    """Return True if the first runs of a setting have ended, all without a value."""
    return all((key, index) in values and values[key, index] is None for index in range(MAX_FAILURES))
