"""The arithmetic of the benchmarks on times that are known."""

from collections.abc import Callable

import pytest

from benchmarks.harness import Row, Spread, interleaved, rates
from benchmarks.report import table


class Clock:
    """Stands still, except while a contender runs."""

    def __init__(self) -> None:
        self.now = 0.0
        self.ran: list[str] = []

    def contender(self, name: str, *durations: float) -> Callable[[], None]:
        left = iter(durations)

        def run() -> None:
            self.ran.append(name)
            self.now += next(left)

        return run


def test_contenders_take_turns_and_the_warm_up_is_not_counted() -> None:
    clock = Clock()
    contenders = {"a": clock.contender("a", 100, 1, 2, 3), "b": clock.contender("b", 50, 4, 5, 6)}

    seconds = interleaved(contenders, num_warmup=1, num_rounds=3, clock=lambda: clock.now)

    assert clock.ran == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert seconds == {"a": (1, 2, 3), "b": (4, 5, 6)}


def test_ratio_is_of_each_round_and_not_of_the_medians() -> None:
    row = Row("x", "s", ours=(1.0, 20.0, 3.0), against="y", theirs=(2.0, 10.0, 9.0))

    assert row.ratios == (0.5, 2.0, pytest.approx(1 / 3))
    assert Spread.of(row.ratios) == Spread(0.5, pytest.approx(1 / 3), 2.0)  # of the medians it would be 1/3
    assert Spread.of((4.0, 1.0)) == Spread(2.5, 1.0, 4.0)


def test_rates_are_amounts_per_second_of_each_round() -> None:
    assert rates(300, (0.5, 2.0)) == (600.0, 150.0)


def test_table_shows_median_and_extremes() -> None:
    rows = [
        Row("data", "images/s", (100_000.0, 120_000.0, 110_000.0), "PIL", (10_000.0, 10_000.0, 20_000.0)),
        Row("import", "s", (0.1234,)),
    ]
    shown = "110,000 (100,000 to 120,000)", "10,000 (10,000 to 20,000)", "10 (5.5 to 12)"

    lines = table(rows, markdown=True).splitlines()

    assert [cell.strip() for cell in lines[2].strip("| ").split("|")] == [
        "data",
        "images/s",
        shown[0],
        "PIL",
        *shown[1:],
    ]
    assert [cell.strip() for cell in lines[3][1:-1].split("|")] == ["import", "s", "0.123 (0.123 to 0.123)", "", "", ""]
    assert lines[1].count("|") == lines[0].count("|") == 7
    assert all(part in table(rows, markdown=False) for part in shown)
