"""Text formats of studies with known answers.

The files in golden/ were looked at by hand, and the LaTeX compiled, once: `LITLAB_GOLDEN=write` writes them anew.
"""

import csv
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from support.grids import by_hand, group, summary
from support.studies import make_study

from litlab.cli import compare as command
from litlab.compare.comparison import compare
from litlab.compare.data_model import Skipped, Summary
from litlab.compare.formats import Format, escape_latex, render
from litlab.compare.html import to_html

GOLDEN = Path(__file__).parent / "golden"
AXES = {"optimizer.lr": [0.05, 0.1, 0.5], "model.widths": [[2, 4], [4, 8]], "seed": [0, 1, 2, 3]}
BASELINE = "lr=0.1 widths=[2,4]"
NOISE = [-0.004, 0.003, -0.001, 0.002]  # by seed
HOSTILE = "a|b\n\x1b[31m\\_%&#${}^~<>*`\u202e"
RATES = [0.002236503628571064, 0.0316227766016838, 0.1]


def accuracy(point: dict[str, Any]) -> float:
    of_lr = {0.05: 0.81, 0.1: 0.845, 0.5: 0.6}[point["optimizer.lr"]]
    of_widths = 0.002 * point["model.widths"][0] * (1 + point["seed"] % 2)
    return round(of_lr + of_widths + NOISE[point["seed"]] * (8 if point["optimizer.lr"] == 0.5 else 1), 6)


def on_test(point: dict[str, Any]) -> float:
    return round(accuracy(point) - 0.01, 6)


def ending(point: dict[str, Any]) -> str:
    if point["optimizer.lr"] != 0.5 or point["model.widths"] != [4, 8]:
        return "completed"
    return ["failed", "pruned", "completed", "failed"][point["seed"]]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outputs") / "lr_by_widths"
    parameters = lambda point: 1254 * point["model.widths"][0]  # noqa: E731
    make_study(path, AXES, accuracy, status=ending, test_accuracy=on_test, parameters=parameters)
    return path


@pytest.mark.parametrize("baseline", [None, BASELINE])
@pytest.mark.parametrize(("format", "suffix"), [("markdown", "md"), ("latex", "tex"), ("table", "txt")])
def test_golden(study: Path, format: Format, suffix: str, baseline: str | None) -> None:
    text = render(compare([study], baseline=baseline), format)
    file = GOLDEN / f"{'study' if baseline is None else 'baseline'}.{suffix}"
    if os.environ.get("LITLAB_GOLDEN") == "write":
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("format", get_args(Format))
def test_the_same_bytes(study: Path, format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the terminal, and in whatever order a dict was filled."""
    comparison = compare([study], baseline=BASELINE)
    turned = replace(
        comparison,
        keys=reversed_dict(comparison.keys),
        groups=tuple(
            replace(member, **{name: reversed_dict(getattr(member, name)) for name in ("settings", "others", "test")})
            for member in comparison.groups
        ),
    )
    before = render(comparison, format)
    monkeypatch.setenv("COLUMNS", "30")
    assert render(turned, format) == before == render(compare([study], baseline=BASELINE), format)
    assert before.endswith("\n")


def reversed_dict(values: Any) -> dict[Any, Any]:
    return dict(reversed(list(values.items())))


def test_csv_is_in_full_precision(study: Path) -> None:
    comparison = compare([study], baseline=BASELINE)
    rows = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    assert [row["group"] for row in rows] == [expected.name for expected in comparison.groups]
    for row, expected in zip(rows, comparison.groups, strict=True):
        assert float(row["val/accuracy mean"]) == expected.value.mean
        assert float(row["test/accuracy best"]) == expected.test["test/accuracy"].best
        assert row["val/accuracy low"] == ("" if expected.value.low is None else repr(expected.value.low))
        corrected = expected.difference and expected.difference.corrected
        assert row["difference corrected"] == ("" if corrected is None else repr(corrected))
        assert int(row["tied with the best"]) == (expected.name in comparison.ties)
    assert (rows[-1]["failed"], rows[-1]["pruned"], rows[-1]["parameters"]) == ("2", "1", "5016")
    assert rows[0]["widths"] == "[4,8]"


def test_json_has_the_whole_comparison(study: Path) -> None:
    comparison = compare([study], baseline=BASELINE)
    content = json.loads(render(comparison, "json"), parse_constant=pytest.fail)
    assert (content["metric"]["name"], content["at"], content["baseline"]) == ("val/accuracy", "best", BASELINE)
    assert content["ties"] == sorted(comparison.ties)
    assert content["notes"] == list(comparison.notes)
    for entry, expected in zip(content["groups"], comparison.groups, strict=True):
        assert entry["value"]["mean"] == entry["columns"]["val/accuracy mean"] == expected.value.mean
        assert [run["seed"] for run in entry["runs"]] == [run.seed for run in expected.runs]
        assert [run["best"] for run in entry["runs"]] == [run.best for run in expected.runs]
        assert [Path(run["path"]) for run in entry["runs"]] == [run.path for run in expected.runs]


def test_json_has_no_nan_and_no_control_characters() -> None:
    of_nan = Summary(2, float("nan"), float("inf"), None, None, 0.5)
    text = render(by_hand(group(HOSTILE, of_nan), skipped=(Skipped(Path("a\udcff"), HOSTILE),)), "json")
    assert text.isascii()
    assert all(line.isprintable() for line in text.splitlines())
    content = json.loads(text, parse_constant=pytest.fail)
    assert content["groups"][0]["value"]["mean"] is None
    assert content["groups"][0]["settings"] == {"lr": HOSTILE}


@pytest.mark.parametrize("format", ["table", "markdown", "csv", "latex"])
def test_hostile_names_are_escaped(format: Format) -> None:
    hostile = group(HOSTILE, summary(0.5, 0.01), settings={HOSTILE: HOSTILE})
    text = render(
        by_hand(
            hostile, group("0.1", summary(0.4, 0.01)), labels=(HOSTILE,), baseline=HOSTILE, notes=(HOSTILE,),
            ties=frozenset({HOSTILE}), skipped=(Skipped(Path(HOSTILE), HOSTILE),),
        ),
        format,
    )  # fmt: skip
    assert all(line.isprintable() for line in text.splitlines())
    if format == "markdown":
        lines = [line for line in text.splitlines() if line.startswith("|")]
        assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {7}
    if format == "latex":
        body = "\n".join(line for line in text.splitlines() if not line.startswith("%"))
        assert not re.search(r"(?<!\\)[#%_~^<>]", body.replace(r"tab:", ""))
        bare = re.sub(r"\\[{}]", "", body)
        assert bare.count("{") == bare.count("}")


def test_latex_characters() -> None:
    assert escape_latex(r"\_%&#${}") == r"\textbackslash{}\_\%\&\#\$\{\}"
    assert escape_latex("^~<>|") == r"\textasciicircum{}\textasciitilde{}\textless{}\textgreater{}\textbar{}"
    assert escape_latex("[6,16] 1 ± 2 --") == r"{[}6,16] 1 $\pm$ 2 -{}-"


@pytest.mark.parametrize("format", get_args(Format))
def test_without_any_group(format: Format) -> None:
    assert render(by_hand(notes=("nothing is left",)), format).endswith("\n")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("narrow") / "s"
    make_study(
        path,
        AXES | {"optimizer.lr": RATES, "seed": [0, 1]},
        lambda point: 0.5 + point["optimizer.lr"] + 0.01 * point["seed"] * point["model.widths"][0],
        parameters=lambda point: 1000 * point["model.widths"][0],
        seconds=lambda point: {"training": 0.1 * point["model.widths"][0]},
        images_per_second=lambda point: 1000.0 * point["model.widths"][0],
    )
    return path


def heads(text: str) -> str:
    return " ".join(text.splitlines()[1].split())


def test_a_narrow_terminal_drops_columns(searched: Path) -> None:
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
        text = render(comparison, "table", room)
        assert heads(text).endswith(ending)
        assert "\nLeft out, as the terminal is too narrow: images/s" in text
    remark = "Left out, as the terminal is too narrow: images/s, parameters, training time, test interval, best; "
    assert remark + "--format csv has all columns." in " ".join(text.split())
    assert "best: of the seeds" not in text, "no word about a column that is not there"


def test_only_a_terminal_is_narrow(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    command.main([str(searched)])
    assert capsys.readouterr().out == render(compare([searched]), "table")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    command.main([str(searched)])
    assert "too narrow" in capsys.readouterr().out


def test_settings_have_five_digits_for_people_and_all_for_programs(searched: Path) -> None:
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


def test_an_ascii_terminal_gets_no_traceback(searched: Path) -> None:
    code = "import sys; sys.argv = ['litlab', *sys.argv[1:]]; from litlab.cli.main import main; main()"
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([sys.executable, "-c", code, "compare", searched], env=environment, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb" \xb1 " in done.stdout
