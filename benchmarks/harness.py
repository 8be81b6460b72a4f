"""Measuring contenders side by side: whatever else the machine does meets all of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Row:
    """One line of the table: the same quantity of litlab and of what it is held against, round by round.

    ours, theirs: a value per round, in `unit`; values of one round stand at one place. `theirs` is empty where there is
        nothing to hold the quantity against.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    against: str = ""
    theirs: tuple[float, ...] = ()

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ours by theirs, per round: what disturbs a round disturbs both, and mostly cancels."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)) if self.theirs else ()


@dataclass(frozen=True)
class Spread:
    """Median, smallest and largest of several rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    num_warmup: int,
    num_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Seconds of each contender in each round; the rounds of the warm-up run first and are left out.

    In every round each runs once, in turn; every other round in reverse, so that none always comes first.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(num_warmup + num_rounds):
        for name in list(contenders)[:: -1 if number % 2 else 1]:
            start = clock()
            contenders[name]()
            elapsed = clock() - start
            if number >= num_warmup:
                seconds[name].append(elapsed)
    return {name: tuple(values) for name, values in seconds.items()}


def rates(amount: float, seconds: Sequence[float]) -> tuple[float, ...]:
    """An amount per second, for each round."""
    return tuple(amount / each for each in seconds)
