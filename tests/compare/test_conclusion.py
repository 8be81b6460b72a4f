"""Wording of a comparison: its question and answer, and advice where differences may be noise."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.studies import make_study

from litlab.compare.comparison import compare
from litlab.compare.conclusion import advice, answer, question
from litlab.compare.data_model import Design
from litlab.compare.differences import FIXED, differences
from litlab.compare.html import to_html
from litlab.runs.metrics import Metric

ACCURACY, LOSS = Metric("val/accuracy", "%", "max", (0.0, 1.0)), Metric("val/loss", "", "min")


@pytest.mark.parametrize(
    ("seeds", "title", "text"),
    [
        ([0], "What validation accuracy does the run reach?", "All runs: 50.00 % (one seed)."),
        (
            [0, 1, 2],
            "What validation accuracy do the runs reach?",
            "All runs: 51.0 % (95 % interval 48.5 to 53.5, 3 seeds).",
        ),
    ],
)
def test_without_a_setting_that_varies(seeds: list[int], title: str, text: str, tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"seed": seeds}, lambda point: 0.5 + 0.01 * point["seed"])
    comparison = compare([tmp_path / "s"])
    assert (question(comparison), answer(comparison)) == (title, text)
    page = to_html(comparison)
    assert f"<h1>{title}</h1>" in page
    assert f'<p class="answer">{text}</p>' in page


def test_values_have_the_unit_of_the_metric(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"seed": [0]}, lambda point: 0.5)
    comparison = replace(compare([tmp_path / "s"]), metric=Metric("valid_latency", "ms", "min"))
    assert question(comparison) == "What validation latency does the run reach?"
    assert answer(comparison) == "All runs: 0.5000 ms (one seed)."


def test_advice() -> None:
    tested = differences(
        {0: 0.50, 1: 0.51, 2: 0.52},
        {
            "lr=0.05": {0: 0.504, 1: 0.52, 2: 0.519},
            "lr=9": {0: 0.1, 1: 0.11001, 2: 0.12},
            "lr=0.01": {0: 0.4},
            "lr=1": {8: 0.0, 9: 1.03},
            "flip": {0: 0.50, 1: 0.51, 2: 0.52},
            "shifted": {0: 0.60, 1: 0.61, 2: 0.62},
        },
    )
    needed = tested["lr=0.05"].needed
    same = "against the baseline (3 pairs of seeds), but the difference is the same in all pairs"
    expected = {
        "lr=0.05": "+0.004333 against the baseline (3 pairs of seeds) can't be told from noise; "
        f"if the true difference is as large as this, about {needed} seeds of each would do in a study that plans them "
        "(seeds added to this one make its test sequential, which needs more)",
        "lr=9": None,
        "lr=0.01": "-0.11 against the baseline, but with one seed no spread is known: it may be noise; "
        "run at least 2 more seeds",
        "lr=1": "+0.005 against the baseline (2 seeds) can't be told from noise; "
        "a difference this small would need more than 1,000 seeds",
        "flip": f"+0 {same}, so there is no spread to test with",
        "shifted": f"+0.1 {same}, so there is no spread to test with",
    }
    for name, text in expected.items():
        assert advice(name, tested[name], LOSS, "seed", FIXED) == (text and f"{name}: {text}")
    in_points = advice("lr=0.05", tested["lr=0.05"], ACCURACY, "seed", FIXED)
    assert in_points.startswith("lr=0.05: +0.43 points against the baseline")


BASE = dict.fromkeys(range(5), 0.5)
GAINS = [0.01, -0.002, 0.006, 0.003, -0.004]


@pytest.mark.parametrize(
    ("horizon", "factor", "text"),
    [
        (60, 1.0, "; if the true difference is as large as this, about {needed} of each would do"),
        (None, 1.0, "; if the true difference is as large as this, about {needed} of each would do"),
        (20, 0.1, "; a difference this small would need more than the 20 seeds that are planned"),
        (None, 0.1, "; a difference this small would need more than 100 seeds"),
    ],
)
def test_advice_before_a_difference_is_decided(horizon: int | None, factor: float, text: str) -> None:
    design = Design("sequential", horizon)
    mean = sum(GAINS) / 5
    values = {seed: 0.5 + gain + (factor - 1) * mean for seed, gain in enumerate(GAINS)}
    difference = differences(BASE, {"a": values}, design)["a"]
    sentence = advice("a", difference, ACCURACY, "seed", design)
    assert sentence is not None
    assert sentence.partition("can't be told from noise")[2] == (
        " yet; seeds may be added until it is decided" + text.format(needed=difference.needed)
    )


@pytest.mark.parametrize("design", [Design("sequential", 5), Design("sequential", 6, is_last=True)])
def test_advice_at_the_end_of_the_plan(design: Design) -> None:
    """The second study has ended, too: one of its seeds failed."""
    difference = differences(BASE, {"a": {seed: 0.5 + gain for seed, gain in enumerate(GAINS)}}, design)["a"]
    sentence = advice("a", difference, ACCURACY, "seed", design)
    assert sentence is not None
    assert sentence.endswith(
        f"can't be told from noise with the {design.horizon} planned seeds; with more, the test has an open end"
    )
