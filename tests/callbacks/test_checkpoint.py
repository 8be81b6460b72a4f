"""The best value of the objective."""

import math

import pytest

from litlab.callbacks.checkpoint import BestTracker
from litlab.errors import UserError


@pytest.mark.parametrize(("mode", "values", "step"), [("max", [1, 3, 3, 2], 2), ("min", [3, 1, 2, 1], 2)])
def test_first_of_equal_values_is_the_best(mode: str, values: list[float], step: int) -> None:
    best = BestTracker("val/loss", mode)
    improved = [best.improved({"val/loss": value}, number) for number, value in enumerate(values, start=1)]
    assert (best.step, best.value) == (step, values[step - 1])
    assert improved == [True, True, False, False]


def test_nan_and_infinity_are_never_the_best() -> None:
    for mode, infinity in (("min", -math.inf), ("max", math.inf)):
        best = BestTracker("val/loss", mode)
        assert not any(best.improved({"val/loss": value}, 1) for value in (math.nan, infinity, -infinity))
        assert best.improved({"val/loss": 1.0}, 3)
        assert not best.improved({"val/loss": infinity}, 4)


def test_missing_metric_is_an_error() -> None:
    logged = r"logged: val/loss\. A resumed run keeps its objective: start a new run with one of these"
    with pytest.raises(UserError, match=rf"objective.metric=val/f1: was not logged in validation; {logged}"):
        BestTracker("val/f1", "max").improved({"val/loss": 1.0}, 1)
    with pytest.raises(UserError, match=rf"was not logged in validation; did you mean val/loss; {logged}"):
        BestTracker("val/los", "min").improved({"val/loss": 1.0}, 1)


def test_state_is_restored() -> None:
    best, other = BestTracker("m", "max"), BestTracker("m", "max")
    best.improved({"m": 2.0}, 7)
    other.set_state(best.state())
    assert not other.improved({"m": 1.0}, 8)
    assert (other.value, other.step) == (2.0, 7)
