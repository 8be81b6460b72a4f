"""Sequential t tests of paired differences: valid at every number of seeds, however often they are looked at.

A researcher who adds seeds until p < 0.05 finds differences where there are none. The group-sequential test does not
(Jennison and Turnbull, Group Sequential Methods, 2000): its boundary tells at each number of pairs how small the
p-value of the ordinary t test has to be, so that under the null it is crossed at any of them with probability `level`
in all. The part of the level that is spent until then is fixed beforehand (Lan and DeMets, Biometrika 70, 1983):

- With a planned number of seeds N, the share (x + x^4) / 6 of the level until look n, x = (n - 1) / (N - 1), and the
  rest at N. The power at N is at most 2 points below that of the fixed test. With N = 20, a difference of 3 (1.5)
  standard deviations of the pairs is found with a median of 6 (10) seeds.
- Without a plan, the share (n - 1) / (n + 9), without an end.

Boundaries are computed exactly for independent normal differences of unknown variance: under the null, the t statistics
of the first n, n + 1, ... pairs are a Markov chain, as the direction of a vector of independent normal numbers does not
depend on its length. Its density is propagated over a grid, as Armitage, McPherson and Rowe did for known variance
(Journal of the Royal Statistical Society A 132, 1969).

The smallest level at which a boundary was crossed is a p-value that is valid at any time. The means whose boundary was
not crossed are a confidence sequence (repeated confidence intervals, Jennison and Turnbull, Journal of the Royal
Statistical Society B 51, 1989). `tests/statistics/test_sequential.py` simulates both.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from litlab.statistics.student_t import deviation_of, is_spread, mean_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LARGEST = 200  # number of pairs up to which boundaries are computed
_NUM_CELLS = 140  # of the grid over the t statistic, on the scale on which it is normal
_FAR = 7.0  # end of the grid: a p-value of 3e-12
_LEVELS = tuple(10 ** (-8 + 8 * index / 63) for index in range(64))


@dataclass(frozen=True)
class Look:
    """Sequential test of the mean of paired differences at a number of pairs.

    Attributes:
        num: Number of pairs.
        mean: Mean of the differences.
        low: Lower end of the confidence sequence; -inf if the differences have no spread.
        high: Upper end.
        p: Smallest level at which the mean was told from 0 at this or an earlier number; 1 if they had no spread.
    """

    num: int
    mean: float
    low: float
    high: float
    p: float


def paired_looks(
    gains: Sequence[float],
    horizon: int | None,
    level: float = 0.05,
    *,
    scale: float = 0.0,
    is_last: bool = False,
) -> list[Look]:
    """Test the mean of paired differences after each of them, from the second on.

    Args:
        gains: Differences of the pairs in the order in which they were known, finite: earlier looks have to be at the
            first of them.
        horizon: Planned number of pairs; None for an open end. More pairs than planned are not tested anymore.
        level: Probability of an error in all looks together; that of the confidence sequence is 1 - `level`.
        scale: Largest absolute value that was subtracted: a spread below its rounding does not count.
        is_last: True if no planned pair is still to come, although there are fewer than planned, since runs failed. The
            rest of the level is spent at the last one.
    """
    from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

    end = len(gains) if is_last else None
    looks, best = [], 1.0
    for num in range(2, len(gains) + 1):
        seen = gains[:num]
        mean, deviation = mean_of(seen), deviation_of(seen)
        low, high = -math.inf, math.inf
        if deviation is not None and is_spread(deviation, [scale, *seen]):
            error, nominal = deviation / math.sqrt(num), nominal_level(num, horizon, level, end)
            best = min(best, _level_of(2 * float(stdtr(num - 1, -abs(mean) / error)), num, horizon, end))
            if nominal > 0:
                half = -float(stdtrit(num - 1, nominal / 2)) * error
                low, high = mean - half, mean + half
        looks.append(Look(num, mean, low, high, best))
    return looks


def sequential_p(p_values: Mapping[int, float], horizon: int | None, end: int | None = None) -> float:
    """Compute the p-value that is valid at any time from those of ordinary two-sided t tests.

    Args:
        p_values: Number of pairs -> p-value of the test of these pairs alone. Numbers that are left out count as not
            looked at, which is valid but loses a little power.
        horizon: Planned number of pairs; None for an open end.
        end: Number at which the rest of the level is spent, if fewer pairs than planned will come.
    """
    return min((_level_of(p, num, horizon, end) for num, p in p_values.items()), default=1.0)


def nominal_level(num: int, horizon: int | None, level: float, end: int | None = None) -> float:
    """Compute the p-value of an ordinary two-sided t test below which the sequential test rejects.

    Args:
        num: Number of pairs, 2 or more.
        horizon: Planned number of pairs; None for an open end.
        level: Probability with which the null is rejected at any number.
        end: Number at which the rest of the level is spent, if fewer pairs than planned will come.

    Returns:
        The bound; 0 beyond the horizon and beyond LARGEST.
    """
    from scipy.special import ndtr

    assert num >= 2
    if num > _last(horizon):
        return 0.0
    return 2 * float(ndtr(-_recursion(horizon, end, (level,)).bounds(num)[0]))


def _level_of(p: float, num: int, horizon: int | None, end: int | None) -> float:
    """Return the level of the sequential test whose boundary at `num` pairs is an ordinary p-value."""
    import numpy as np
    from scipy.special import ndtri

    if num > _last(horizon):
        return 1.0
    z = -float(ndtri(max(p, 1e-300) / 2))
    return float(np.exp(np.interp(-z, *_levels_by_boundary(horizon, end, num))))


@cache
def _levels_by_boundary(horizon: int | None, end: int | None, num: int) -> "tuple[Array, Array]":
    """Return negative boundaries at `num` pairs, which increase, and the logarithms of their levels."""
    import numpy as np

    return -_recursion(horizon, end, _LEVELS).bounds(num), np.log(_LEVELS)


def _last(horizon: int | None) -> int:
    return LARGEST if horizon is None else min(horizon, LARGEST)


def _spent(horizon: int | None, end: int | None) -> Callable[[int], float]:
    """Return the share of the level that is spent until a number of pairs; all at the planned number, or the end."""
    if horizon is None or horizon > LARGEST:
        return lambda num: (num - 1) / (num + 9)

    def share(num: int) -> float:
        part = (num - 1) / (horizon - 1)
        return 1.0 if num in (end, horizon) else (part + part**4) / 6

    return share


class _Recursion:
    """Boundaries of a design, computed as far as they are needed.

    Args:
        horizon: Planned number of pairs; None for an open end.
        end: Number at which the rest of the level is spent, if fewer pairs than planned will come.
        levels: Levels of the tests, which are computed at once.
    """

    def __init__(self, horizon: int | None, end: int | None, levels: tuple[float, ...]) -> None:
        import numpy as np
        from scipy.special import ndtr

        self._levels = levels
        self._spent = _spent(horizon, end)
        self._density = np.tile(2 * np.diff(ndtr(_edges())), (len(levels), 1))  # of those not decided; [level, cell]
        self._bounds: list[Array] = []

    def bounds(self, num: int) -> "Array":
        """Return the boundary at `num` pairs for each level, as an absolute normal deviate."""
        import numpy as np

        for n in range(len(self._bounds) + 2, num + 1):
            if n > 2:
                self._density = self._density @ _transition(n - 1)
            share = self._spent(n) - (self._spent(n - 1) if n > 2 else 0.0)
            pairs = zip(self._density, self._levels, strict=True)
            self._bounds.append(np.array([_cut(row, level * share, _edges()) for row, level in pairs]))
        return self._bounds[num - 2]


@cache
def _recursion(horizon: int | None, end: int | None, levels: tuple[float, ...]) -> _Recursion:
    return _Recursion(horizon, end, levels)


def _cut(density: "Array", probability: float, edges: "Array") -> float:
    """Remove the outer part that has a probability, in place; return where it begins."""
    import numpy as np

    tail = np.cumsum(density[::-1])[::-1]  # probability at or beyond the lower edge of each cell
    if probability >= tail[0]:
        density[:] = 0
        return 0.0
    cell = int(np.count_nonzero(tail > probability)) - 1
    beyond = tail[cell + 1] if cell + 1 < len(tail) else 0.0
    kept = (tail[cell] - probability) / (tail[cell] - beyond)
    density[cell + 1 :] = 0
    density[cell] *= kept
    return float(edges[cell] + kept * (min(edges[cell + 1], _FAR + 1) - edges[cell]))


@cache
def _edges() -> "Array":
    import numpy as np

    return np.append(np.linspace(0, _FAR, _NUM_CELLS), np.inf)


@cache
def _transition(num: int) -> "Array":
    """Compute the transition of |t| from `num` pairs to one more, in cells of the normal deviate: [from, to]."""
    import numpy as np

    edges = _edges()
    middles = np.append((edges[1:-1] + edges[:-2]) / 2, _FAR)
    before, after = _scaled(middles, num)[:, None], _scaled(edges[:-1], num + 1)[None, :]
    inside = _probability_below(after, before, num) - _probability_below(-after, before, num)
    matrix: Array = np.diff(np.hstack([inside, np.ones_like(before)]), axis=1)
    return matrix


def _scaled(deviates: "Array", num: int) -> "Array":
    """Return sum / root of the sum of squares of `num` values, whose t statistic has normal deviates, not negative."""
    import numpy as np
    from scipy.special import ndtr, stdtrit

    t = -stdtrit(num - 1, ndtr(-deviates))
    scaled: Array = t * np.sqrt(num / (num - 1 + t * t))
    return scaled


def _probability_below(bounds: "Array", before: "Array", num: int) -> "Array":
    """Return P(s' <= bound) of s' = (s + v) / sqrt(1 + v^2), with s = `before` of `num` values.

    v is the next value divided by the root of the sum of squares so far, and sqrt(num) v has Student's t distribution
    with `num` degrees of freedom. s' rises to its largest value at v = 1 / s and falls to 1 beyond it.
    """
    import numpy as np
    from scipy.special import stdtr

    is_negative = bounds < 0
    bound, s = np.abs(bounds), np.where(is_negative, -before, before)
    root = bound * np.sqrt(np.maximum(1 + s * s - bound * bound, 0))
    denominator = 1 - bound * bound
    denominator = np.where(np.abs(denominator) < 1e-12, 1e-12, denominator)
    last, first = (stdtr(num, math.sqrt(num) * (sign * root - s) / denominator) for sign in (1, -1))
    is_reached = (1 + s * s > bound * bound) & (s > 0)
    below = np.where(bound < 1, last, np.where(is_reached, 1 - (first - last), 1))
    return np.where(is_negative, 1 - below, below)
