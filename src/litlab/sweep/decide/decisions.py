"""Decisions of a study: its families of comparisons, how they grow, and the runs that are needed next.

The error rate of a family holds whatever the user has seen before it was opened. A setting that is added late is tested
on the seeds of those before. For a wrong decision it has to be added and found different, and it is found different
with at most the probability of its family even if it is always added. The same holds for the open-ended test of what is
undecided at the horizon, which uses all seeds from the first one.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, combinations

from litlab.sweep.decide.rounds import (
    MIN_PAIRS,
    Comparison,
    Family,
    Looks,
    Pair,
    Rounds,
    Rule,
    Run,
    Source,
    Verdict,
    has_failed,
    looks_of,
)


class Decisions:
    """Decisions by the values of the runs so far.

    Args:
        rule: Parameters of the decisions.
        reserve: Share of the level that is kept for later families.
        seeds_max: Largest number of seeds of a setting.
        baseline: Key of the setting that the others are compared with; None to compare each with each.
        looks: Test of the pairs' differences.

    Attributes:
        values: Objective of each run that has ended; None for one without a value.
        families: The families in the order in which they were opened.
        rounds: Their rounds.
    """

    def __init__(
        self, rule: Rule, reserve: float, seeds_max: int, baseline: str | None, looks: Looks = looks_of
    ) -> None:
        self.rule, self.reserve, self.seeds_max, self.baseline = rule, reserve, seeds_max, baseline
        self.values: dict[Run, float | None] = {}
        self.families: list[Family] = []
        self.rounds: list[Rounds] = []
        self._looks = looks

    @property
    def settings(self) -> list[str]:
        """Keys of the settings in all families, in their order."""
        return list(dict.fromkeys(key for family in self.families for key in family.settings))

    @property
    def is_over(self) -> bool:
        """True if all is decided, or has all of its seeds."""
        return all(rounds.is_over for rounds in self.rounds)

    @property
    def error_rate(self) -> float:
        """Probability of at least one false difference in the study, at most."""
        return self.rule.alpha + sum(family.alpha for family in self.families if family.source == "new")

    def open(self, family: Family) -> None:
        """Add a family."""
        limit = self.seeds_max if family.horizon is None else family.horizon
        self.families.append(family)
        self.rounds.append(Rounds(family, self.rule, limit, self._looks))

    def add_settings(self, keys: Sequence[str]) -> None:
        """Open a family for settings that are in none, after the values of earlier runs were advanced over."""
        before = self.settings
        new = [key for key in keys if key not in before and key != self.baseline]
        if self.baseline is not None:
            pairs = [(key, self.baseline) for key in new]
        else:
            out = {key for rounds in self.rounds for key in rounds.worse()}
            left = [key for key in before if key not in out and not has_failed(key, self.values)]
            pairs = [*((key, other) for key in new for other in left), *combinations(new, 2)]
        if pairs:
            self.open(Family(tuple(pairs), self.seeds_max, *self._level()))

    def advance(self) -> bool:
        """Complete all rounds whose runs have ended, and open families for what is undecided then.

        Returns:
            True if a round was completed or a family was opened.
        """
        num_before = len(self.families), sum(rounds.num for rounds in self.rounds)
        for rounds in self.rounds:
            while rounds.advance(self.values):
                pass
        for index in range(len(self.families)):
            self._extend(index)
        num_after = len(self.families), sum(rounds.num for rounds in self.rounds)
        return num_after != num_before and (self.advance() or True)

    def _extend(self, index: int) -> None:
        """Open a family of what is undecided at the horizon of another one, if there are more seeds."""
        family, rounds = self.families[index], self.rounds[index]
        if family.horizon is None or family.horizon >= self.seeds_max or not (rounds.is_over and rounds.open_pairs):
            return
        if all(other.extends != index for other in self.families):
            within = [pair for pair, state in rounds.comparisons.items() if state.verdict is Verdict.WITHIN]
            self.open(Family((*rounds.open_pairs, *within), None, *self._level(), index, tuple(within)))

    def _level(self) -> tuple[float, Source]:
        """Return the level of a new family, and where it comes from."""
        if not self.families:
            return self.rule.alpha * (1 - self.reserve), "first"
        if self.reserve and all(family.source != "reserve" for family in self.families):
            return self.rule.alpha * self.reserve, "reserve"
        return self.rule.alpha, "new"

    def wanted(self) -> list[Run]:
        """Return the runs that are needed or may be needed soon, in the order in which to start them.

        First those of the round of each family, the baseline's and those closest to a decision first. Rounds before
        MIN_PAIRS decide nothing, so their runs are needed in any case. Then those of the next round, farthest from a
        decision first. Runs that have ended are left out.
        """
        runs = chain.from_iterable(chain(self._needed(), self._ahead()))
        return [run for run in dict.fromkeys(runs) if run not in self.values]

    def _needed(self) -> Iterator[Iterable[Run]]:
        for rounds in self.rounds:
            if not rounds.is_over:
                keys = sorted(rounds.active(), key=lambda key: (key != self.baseline, rounds.distance(key)))
                yield ((key, index) for index in range(rounds.num, _end(rounds)) for key in keys)

    def _ahead(self) -> Iterator[Iterable[Run]]:
        for rounds in self.rounds:
            if not rounds.is_over and (index := _end(rounds)) < rounds.limit:
                keys = sorted(rounds.active(), key=lambda key: (key != self.baseline, -rounds.distance(key)))
                yield [(key, index) for key in keys]

    def num_left(self) -> int:
        """Return the largest number of runs that may still be needed."""
        runs = {
            (key, index)
            for rounds in self.rounds
            if not rounds.is_over
            for key in rounds.active()
            for index in range(rounds.num, max(rounds.limit, self.seeds_max))
        }
        return len(runs - self.values.keys())

    def comparison(self, pair: Pair) -> tuple[Comparison, int]:
        """Return the newest state of a comparison, and the number of its family."""
        tested = [{*family.pairs}.difference(family.within) for family in self.families]
        index = max(index for index, pairs in enumerate(tested) if pair in pairs)
        return self.rounds[index].comparisons[pair], index


def _end(rounds: Rounds) -> int:
    """Return the index after the seeds that are needed in any case."""
    return min(max(rounds.num + 1, MIN_PAIRS), rounds.limit)
