"""The arithmetic of the benchmarks on fixed times."""

from functools import partial
from itertools import count

from benchmarks.harness import Row, interleaved, rates
from benchmarks.report import table


def test_contenders_take_turns_and_the_warm_up_is_not_counted() -> None:
    calls: list[str] = []
    ticks = (number**2 for number in count())  # call k lasts 4 k + 1

    seconds = interleaved(
        {name: partial(calls.append, name) for name in "ab"}, num_warmup=1, num_rounds=3, clock=lambda: next(ticks)
    )

    assert "".join(calls) == "abbaabba"
    assert seconds == {"a": (13, 17, 29), "b": (9, 21, 25)}


def test_rates_are_amounts_per_second_of_each_round() -> None:
    assert rates(300, (0.5, 2.0)) == (600.0, 150.0)


def test_table_shows_median_and_extremes() -> None:
    rows = [
        Row("data", "images/s", (100_000.0, 120_000.0, 110_000.0), "PIL", (10_000.0, 10_000.0, 20_000.0)),
        Row("import", "s", (0.1234,)),
    ]
    ours, theirs, ratio = "110,000 (100,000 to 120,000)", "10,000 (10,000 to 20,000)", "10 (5.5 to 12)"

    lines = table(rows, markdown=True).splitlines()
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]

    assert cells[2:] == [
        ["data", "images/s", ours, "PIL", theirs, ratio],  # the ratio of the medians is 11
        ["import", "s", "0.123 (0.123 to 0.123)", "", "", ""],
    ]
    assert len(cells[0]) == len(cells[1]) == 6
    assert all(text in table(rows, markdown=False) for text in (ours, theirs, ratio))
