"""What a table leaves out: columns where there is no room, digits of settings, marks where nothing is told."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.studies import make_study

from litlab.cli import compare as command
from litlab.compare.comparison import compare
from litlab.compare.formats import render
from litlab.compare.html import to_html
from litlab.compare.hyperparameters import shorten
from litlab.runs.terminal import format_duration

RATES = [0.002236503628571064, 0.0316227766016838, 0.1]
AXES = {"optimizer.lr": RATES, "model.widths": [[2, 4], [4, 8]], "seed": [0, 1]}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("narrow") / "s"
    make_study(
        path,
        AXES,
        lambda point: 0.5 + point["optimizer.lr"] + 0.01 * point["seed"] * point["model.widths"][0],
        parameters=lambda point: 1000 * point["model.widths"][0],
        seconds=lambda point: {"training": 0.1 * point["model.widths"][0]},
        images_per_second=lambda point: 1000.0 * point["model.widths"][0],
    )
    return path


def heads(text: str) -> str:
    return " ".join(text.splitlines()[1].split())


def test_a_narrow_terminal_gets_the_columns_that_there_is_room_for(searched: Path) -> None:
    comparison = compare([searched])
    whole = render(comparison, "table")
    lines = whole.splitlines()
    width = max(map(len, lines[: lines.index("")]))
    assert render(comparison, "table", width) == whole
    assert heads(whole).endswith("training time images/s parameters")
    for room, ending in (
        (width - 1, "training time parameters"),
        (width - 20, "training time"),
        (width - 30, "best mean 95 % interval"),
        (width - 40, "95 % interval best mean"),
        (10, "n mean 95 % interval mean"),
    ):
        found = render(comparison, "table", room)
        assert heads(found).endswith(ending)
        assert "\nLeft out, as the terminal is too narrow: images/s" in found
    said = "Left out, as the terminal is too narrow: images/s, parameters, training time, test interval, best; "
    assert said + "--format csv has all columns." in " ".join(found.split())
    assert "best: of the seeds" not in found, "no word about a column that is not there"


def test_only_a_terminal_is_narrow(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    command.main([str(searched)])
    assert capsys.readouterr().out == render(compare([searched]), "table")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    command.main([str(searched)])
    assert "too narrow" in capsys.readouterr().out


def test_settings_have_five_digits_where_people_read_them_and_all_for_programs(searched: Path) -> None:
    comparison = compare([searched], baseline=f"lr={RATES[0]} widths=[2,4]")
    assert comparison.baseline == "lr=0.0022365 widths=[2,4]"
    assert compare([searched], filters=[f"lr={RATES[0]}"]).groups[0].name == "widths=[4,8]"
    for format in ("table", "markdown", "latex"):
        text = render(comparison, format)
        assert "0.0022365" in text
        assert "0.00223650" not in text
        assert "0.031623" in text
    html = to_html(comparison)
    assert "<td>0.0022365</td>" in html or 'data-value="0.0022365"' in html
    assert "<dd>0.0022365</dd>" in html
    rows = csv.DictReader(io.StringIO(render(comparison, "csv")))
    assert {float(row["lr"]) for row in rows} == set(RATES)
    assert str(RATES[0]) in render(comparison, "json")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["0.002236503628571064", "0.1"], ["0.0022365", "0.1"]),
        (["0.10000000149011612", "0.1", None], ["0.100000001", "0.1"]),
        (["1.23456789e-05"], ["1.2346e-05"]),
        (["[0.123456789,2]", "[0.9,0.999]"], ["[0.12346,2]", "[0.9,0.999]"]),
        (["123456.7", "1234567890", "12345678"], ["123456.7", "1234567890", "12345678"]),
        (["0.1234567890123456", "0.1234567890123457"], ["0.1234567890123456", "0.1234567890123457"]),
        (["v1.23456789", "'1.23456789'", "a[1.23456789]"], ["v1.23456789", "'1.23456789'", "a[1.23456789]"]),
    ],
)
def test_digits_that_tell_settings_apart(texts: list[str | None], expected: list[str]) -> None:
    assert [shorten(texts)[text] for text in texts if text is not None] == expected


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


def test_short_times() -> None:
    assert [format_duration(each) for each in (0.0, 0.04, 0.43, 0.96, 61.0)] == [
        "0:00",
        "0.04 s",
        "0.4 s",
        "0:01",
        "1:01",
    ]


def test_an_ascii_terminal_gets_no_traceback(searched: Path) -> None:
    code = "import sys; sys.argv = ['litlab', *sys.argv[1:]]; from litlab.cli.main import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code, "compare", searched], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb" \xb1 " in done.stdout
