"""Selection bias: the amount by which the best of several groups looks too good on the values it was selected by.

The best of k equal groups has a mean above theirs, by chance. To tell by how much, the seeds are split into two halves
at random, many times: the best group of one half is too good there, and its mean over the other half, on which nothing
was selected, is not. The half has fewer seeds than the whole, so its mean is noisier; the gap between the halves is
scaled by the ratio of the two standard errors. For equal groups the estimate has the right mean; where groups differ,
it is too large by at most a fifth of a standard error. The ordinary bootstrap finds half of it, since the groups that
it resamples differ by their noise already.

A group of one seed is split by adding and subtracting normal noise of the spread that other groups have over their
seeds, which has the same effect (Rasines and Young, Biometrika 110, 2023). `tests/statistics/test_selection.py`
simulates both.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_MAX_CELLS = 4_000_000  # groups times splits


@dataclass(frozen=True)
class SelectionBias:
    """Amounts by which the best group looks too good, in the unit of the values; by chance, some are negative.

    Attributes:
        value: Part of its mean that is selection.
        lead: Part of its lead over the second best that is selection.
    """

    value: float
    lead: float


def selection_bias(
    groups: Sequence[Mapping[Hashable, float]], *, is_max: bool, num_splits: int = 1000
) -> SelectionBias | None:
    """Estimate the selection bias of the best of several groups.

    A seed is in the same half of all groups that have the same seeds, since it may be good for all of them.

    Args:
        groups: Seed -> value for each of two or more groups, each with at least one value.
        is_max: True if large values are better.
        num_splits: Number of random splits; fewer if there are thousands of groups.

    Returns:
        The bias; None if no group has two seeds, or if values overflow.
    """
    import numpy as np

    assert len(groups) > 1
    num_splits = min(num_splits, max(10, _MAX_CELLS // len(groups)))
    random = np.random.default_rng(0)
    with np.errstate(over="ignore", invalid="ignore"):
        spread = _spread(groups)
        if spread is None:
            return None
        seeds = {seed: index for index, seed in enumerate(dict.fromkeys(seed for group in groups for seed in group))}
        order = random.random((len(seeds), num_splits))  # of the seeds in each split, the same for all groups
        selected, other = (np.empty((len(groups), num_splits)) for _ in range(2))
        halves: dict[tuple[Hashable, ...], NDArray[np.bool_]] = {}
        for index, group in enumerate(groups):
            if len(group) == 1:
                noise = spread * random.standard_normal(num_splits)
                (value,) = group.values()
                selected[index], other[index] = value + noise, value - noise
                continue
            if (names := (*group,)) not in halves:
                ranks = order[[seeds[seed] for seed in names]].argsort(axis=0).argsort(axis=0)
                halves[names] = ranks < _half(len(group))
            values, is_first = np.array([*group.values()]), halves[names]
            selected[index] = values @ is_first / _half(len(group))
            other[index] = values @ ~is_first / (len(group) - _half(len(group)))
        scales = np.array([_scale(len(group)) for group in groups])
        best, second = _best_two(selected if is_max else -selected)
        splits = np.arange(num_splits)
        gaps = (selected - other) * scales[:, None] * (1 if is_max else -1)
        gaps -= gaps.mean(axis=0)  # which is 0 over all splits: what a seed does to all groups is no noise then
        bias, lead_bias = gaps[best, splits].mean(), (gaps[best, splits] - gaps[second, splits]).mean()
    if not (math.isfinite(bias) and math.isfinite(lead_bias)):
        return None
    return SelectionBias(float(bias), float(lead_bias))


def _spread(groups: Sequence[Mapping[Hashable, float]]) -> float | None:
    """Return the pooled standard deviation over the seeds of a group; None if no group has two."""
    import numpy as np

    several = [np.array([*group.values()]) for group in groups if len(group) > 1]
    if not several:
        return None
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in several)
    return math.sqrt(squares / sum(len(values) - 1 for values in several))


def _half(num: int) -> int:
    return (num + 1) // 2


def _scale(num: int) -> float:
    """Return the standard error of a mean over all seeds, divided by that over a half."""
    return math.sqrt(_half(num) / num) if num > 1 else math.sqrt(0.5)


def _best_two(values: "Array") -> "tuple[Array, Array]":
    """Return the indices of the largest and second largest value in each column."""
    import numpy as np

    best = values.argmax(axis=0)
    rest = values.copy()
    rest[best, np.arange(values.shape[1])] = -np.inf
    return best, rest.argmax(axis=0)
