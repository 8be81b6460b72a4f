"""The table of a comparison: its registry of columns, caption, decimals and marks."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from support.grids import by_hand, group, summary
from support.studies import make_study

from litlab.compare import table
from litlab.compare.comparison import compare
from litlab.compare.formats import Format, render
from litlab.compare.html import to_html
from litlab.compare.table import Column, decimals, fixed
from litlab.runs.metrics import Metric
from litlab.runs.state import RunStatus


def test_empty_columns_are_left_out() -> None:
    text = render(by_hand(group("0.1", summary(0.5)), group("0.2", None, others={RunStatus.FAILED: 2})), "table")
    assert text.splitlines()[:4] == [
        "        val/accuracy (%)",
        "lr   n   mean   best      not completed",
        "0.1  1  50.00  50.00",
        "0.2  0                    failed 2",
    ]


def test_equal_columns_move_below_the_table() -> None:
    same = [group(name, summary(0.5, 0.1), parameters=62006) for name in ("0.1", "0.2")]
    lines = render(by_hand(*same), "table").splitlines()
    assert "parameters" not in lines[1]
    assert "The same in all groups: parameters 62,006." in lines
    assert "parameters" in render(by_hand(same[0]), "table").splitlines()[1]


def test_caption_says_seeds_or_runs(study: Path) -> None:
    comparison = compare([study])
    assert "over n seeds; best: of the seeds." in " ".join(render(comparison, "table").split())
    groups = [replace(group, runs=tuple(replace(run, seed=None) for run in group.runs)) for group in comparison.groups]
    whole = " ".join(render(replace(comparison, groups=tuple(groups)), "table").split())
    assert "over n runs; best: of the runs." in whole


def test_one_seed_a_group_marks_none_as_best(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0]}, lambda point: point["optimizer.lr"])
    comparison = compare([tmp_path / "s"])
    note = "one seed a group: no spread is known, so the order may be chance; run more seeds"
    assert note in comparison.notes
    text, markdown, html = render(comparison, "table"), render(comparison, "markdown"), to_html(comparison)
    assert "*" not in text
    assert "**" not in markdown
    assert "Bold" not in markdown
    assert "nterval" not in text
    assert "deviation" not in text
    assert note in text.replace("\n  ", " ")
    assert note in html
    assert "●" not in html


def test_a_best_group_of_one_seed_among_others_is_not_marked(tmp_path: Path) -> None:
    status = lambda point: "failed" if point["optimizer.lr"] == 0.2 and point["seed"] else "completed"  # noqa: E731
    value = lambda point: point["optimizer.lr"] + 0.01 * point["seed"]  # noqa: E731
    make_study(tmp_path / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0, 1]}, value, status=status)
    comparison = compare([tmp_path / "s"])
    assert "**" not in render(comparison, "markdown")
    assert any(note.startswith("lr=0.2 has one seed: no spread is known") for note in comparison.notes)


@pytest.mark.parametrize(
    ("metric", "summaries", "expected"),
    [
        ("val/accuracy", [(0.9, 0.0043)], 2),  # 0.43 points
        ("val/accuracy", [(0.9, 0.04)], 1),
        ("val/accuracy", [(0.9, 0.00996)], 1),  # rounds to 1.0
        ("val/accuracy", [(0.9, 0.01), (0.9, 0.012), (0.5, 0.3)], 1),
        ("val/accuracy", [(0.9, 1e-17)], 4),
        ("val/accuracy", [(0.9,), None], 2),
        ("val/loss", [(1.5, 0.0321)], 3),
        ("val/loss", [(1234.0, 250.0)], 0),
        ("val/loss", [(0.0123,)], 5),
        ("val/loss", [(0.0, 0.0)], 2),
        ("val/loss", [(1e-30,)], 8),
        ("val/loss", [None], 2),
    ],
)
def test_decimals(metric: str, summaries: list[tuple[float, ...] | None], expected: int) -> None:
    values = [entry and summary(*entry) for entry in summaries]
    assert decimals(Metric(metric, "%" if "accuracy" in metric else ""), values) == expected


def test_fixed() -> None:
    assert [fixed(-0.001, 2), fixed(-0.001, 2, "+"), fixed(1.005e300, 3), fixed(12.345, 0)] == [
        "0.00", "+0.00", "1.005e+300", "12"
    ]  # fmt: skip


def test_a_new_column_is_one_entry_that_every_format_uses(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third = Column("third", lambda group: 1 / 3, lambda group: "0.33", sort=("third",))
    monkeypatch.setattr(table, "COLUMNS", (*table.COLUMNS, third))
    comparison = compare([study], sort="third")
    for format in get_args(Format):
        text = render(comparison, format)
        assert "third" in text
        assert ("0.33" if format in ("table", "markdown", "latex") else str(1 / 3)) in text
    page = to_html(comparison)
    assert ">third</button>" in page
    assert f'data-value="{1 / 3}">0.33</td>' in page
