"""Measure contenders side by side, so that other load on the machine hits all of them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory


@dataclass(frozen=True)
class Row:
    """Line of the table: the same quantity of litlab and of its contender, round by round.

    Attributes:
        ours: One value per round, in `unit`.
        theirs: The contender's values of the same rounds; empty without a contender.
        is_mean: Whether the table shows the mean and its 95 % interval, for a value that varies by chance, instead of
            median, extremes and ratio.
    """

    name: str
    unit: str
    ours: tuple[float, ...]
    against: str = ""
    theirs: tuple[float, ...] = ()
    is_mean: bool = False

    @property
    def ratios(self) -> tuple[float, ...]:
        """Ratio ours / theirs for each round: a disturbance hits both sides of a round and mostly cancels."""
        return tuple(ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)) if self.theirs else ()


def interleaved(
    contenders: Mapping[str, Callable[[], object]],
    *,
    num_warmup: int,
    num_rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, tuple[float, ...]]:
    """Measure the seconds of each contender in each round.

    Every round runs each contender once; every other round runs them in reverse order, so that none always comes first.
    Warm-up rounds run first and are not counted.
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
    """Return an amount per second for each round."""
    return tuple(amount / duration for duration in seconds)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create an empty folder, which is removed at the end of the context."""
    with TemporaryDirectory(prefix="litlab-bench-") as folder:
        yield Path(folder)


def speed_row(
    name: str, num_images: int, litlab: Callable[[], object], against: str, usual: Callable[[], object], num_rounds: int
) -> Row:
    """Compare the images per second of two functions, after one round of warm-up."""
    seconds = interleaved({"litlab": litlab, "usual": usual}, num_warmup=1, num_rounds=num_rounds)
    speeds = {contender: rates(num_images, durations) for contender, durations in seconds.items()}
    return Row(name, "images/s", speeds["litlab"], against, speeds["usual"])
