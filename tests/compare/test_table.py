"""The table of a comparison: its registry of columns, caption, decimals and marks."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest
from support.grids import by_hand, group, summary
from support.studies import make_study

from litlab.cli import compare as compare_command
from litlab.compare import table
from litlab.compare.comparison import compare
from litlab.compare.formats import render
from litlab.compare.html import to_html
from litlab.compare.table import Column, decimals, fixed
from litlab.errors import UserError
from litlab.runs.metrics import Metric
from litlab.runs.state import RunStatus


def test_empty_columns_are_left_out() -> None:
    found = render(by_hand(group("0.1", summary(0.5)), group("0.2", None, others={RunStatus.FAILED: 2})), "table")
    assert found.splitlines()[:4] == [
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
    found = compare([study])
    assert "over n seeds; best: of the seeds." in " ".join(render(found, "table").split())
    groups = [replace(each, runs=tuple(replace(run, seed=None) for run in each.runs)) for each in found.groups]
    whole = " ".join(render(replace(found, groups=tuple(groups)), "table").split())
    assert "over n runs; best: of the runs." in whole


def test_one_seed_a_group_marks_none_as_best(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0]}, lambda point: point["optimizer.lr"])
    comparison = compare([tmp_path / "s"])
    said = "one seed a group: no spread is known, so the order may be chance; run more seeds"
    assert said in comparison.notes
    text, markdown, html = render(comparison, "table"), render(comparison, "markdown"), to_html(comparison)
    assert "*" not in text
    assert "**" not in markdown
    assert "Bold" not in markdown
    assert "nterval" not in text
    assert "deviation" not in text
    assert said in text.replace("\n  ", " ")
    assert said in html
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
    known = [entry and summary(*entry) for entry in summaries]
    assert decimals(Metric(metric, "%" if "accuracy" in metric else ""), known) == expected


def test_fixed() -> None:
    assert [fixed(-0.001, 2), fixed(-0.001, 2, "+"), fixed(1.005e300, 3), fixed(12.345, 0)] == [
        "0.00", "+0.00", "1.005e+300", "12"
    ]  # fmt: skip


def test_a_new_column_is_one_entry_that_every_format_uses(
    study: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number with its text, value in full precision and name for `--sort`: here of the epochs."""
    epochs = Column(
        "epochs",
        lambda group: fmean(run.epochs for run in group.runs) / 3,
        lambda group: f"{fmean(run.epochs for run in group.runs) / 3:.2f}",
        sort=("epochs",),
        mode="max",
    )
    monkeypatch.setattr(table, "COLUMNS", (*table.COLUMNS, epochs))
    comparison = compare([study], sort="epochs")
    assert [group.name for group in comparison.groups] == [group.name for group in compare([study]).groups]
    value = comparison.groups[0].runs[0].epochs / 3
    for format in ("table", "markdown", "latex"):
        text = render(comparison, format)
        assert "epochs" in text
        assert f"{value:.2f}" in text
    (row, *_) = csv.DictReader(io.StringIO(render(comparison, "csv")))
    assert float(row["epochs"]) == value
    assert json.loads(render(comparison, "json"))["groups"][0]["columns"]["epochs"] == value
    page = to_html(comparison)
    assert ">epochs</button>" in page
    assert f'data-value="{value}">{value:.2f}</td>' in page
    compare_command.main([str(study), "--sort", "epochs"])
    assert "epochs" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"expected one of .*, epochs, test/loss"):
        compare([study], sort="epoch")
