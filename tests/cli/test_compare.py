"""`litlab compare` as it is called: what it prints where, what it writes, how fast it is, and what it leaves alone."""

import csv
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.studies import make_study

from litlab.cli import compare
from litlab.compare.comparison import compare as compare_runs
from litlab.compare.formats import render
from litlab.compare.looks import LOOKS_FILE
from litlab.errors import UserError

NUM_RUNS = 75
AT_MOST_A_RUN = 0.003  # seconds of processor time: 3 s for a thousand runs


def accuracy(point: dict[str, Any]) -> float:
    return 0.5 + point["optimizer.lr"] + 0.01 * point["seed"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two settings of three seeds, and a damaged folder beside."""
    folder = tmp_path_factory.mktemp("outputs")
    make_study(folder / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0, 1, 2]}, accuracy)
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.yaml").write_text("{")
    return folder


def files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    """Return all files but the record of the looks, which `compare` writes."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != LOOKS_FILE)
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def test_table(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(study)
    compare.main([str(study), "--baseline", "lr=0.1"])
    output = capsys.readouterr()
    rows = [line.split()[:2] for line in output.out.splitlines() if line.startswith("0.")]
    assert rows == [["0.2", "3"], ["0.1", "3"]]
    assert "71.0 ± 1.0" in output.out
    assert f"{study / 'damaged'}: config.yaml is damaged" in " ".join(output.out.split())
    assert output.err == ""
    assert files(study) == before


@pytest.mark.parametrize("form", ["csv", "json", "latex"])
def test_for_other_programs(form: str, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare.main([str(study), "--format", form, "--filter", "seed!=0"])
    output = capsys.readouterr()
    lines = output.err.splitlines()
    assert lines[0] == "--filter leaves out 2 of 6 runs"
    assert lines[-1].startswith(f"skipped {study / 'damaged'}: config.yaml is damaged")
    if form == "csv":
        assert [row["lr"] for row in csv.DictReader(output.out.splitlines())] == ["0.2", "0.1"]
    elif form == "json":
        assert json.loads(output.out)["metric"]["name"] == "val/accuracy"
    else:
        assert "\\toprule" in output.out


def test_options_reach_the_comparison(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--metric", "val/loss", "--at", "last", "--group", "optimizer.lr", "--sort", "lr", "--format", "json"]
    compare.main([str(study), *arguments])
    output = json.loads(capsys.readouterr().out)
    assert (output["metric"]["name"], output["metric"]["mode"], output["at"]) == ("val/loss", "min", "last")
    assert [group["name"] for group in output["groups"]] == ["lr=0.1", "lr=0.2"]


@pytest.mark.parametrize(("option", "value"), [("--baseline", "lr=0.1"), ("--group", "lr")], ids=["baseline", "group"])
def test_an_ablation_has_its_own_groups_and_baseline(option: str, value: str, study: Path) -> None:
    with pytest.raises(UserError, match=f"--ablation: groups are the changes, .*; leave {option} out"):
        compare.main([str(study), "--ablation", option, value])
    with pytest.raises(UserError, match="--ablation: none of these runs belongs to an ablation"):
        compare.main([str(study), "--ablation"])


def test_files(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, page, figure = tmp_path / "new" / "table.md", tmp_path / "page.html", tmp_path / "figure.pdf"
    written = ["--output", str(table), "--html", str(page), "--plot", str(figure)]
    compare.main([str(study), "--format", "markdown", *written])
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines()[-3:] == [f"table        {table}", f"figure       {figure}", f"page         {page}"]
    assert table.read_text().startswith("|")
    assert page.read_text().lower().startswith("<!doctype html>")
    assert figure.read_bytes().startswith(b"%PDF")
    assert {path.name for path in tmp_path.iterdir()} == {"new", "page.html", "figure.pdf"}


def test_a_figure_that_a_search_has_no_data_for_is_explained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_study(tmp_path / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0]}, accuracy)
    plan = tmp_path / "s" / "study.yaml"
    plan.write_text(plan.read_text().replace("kind: grid", "kind: search"))
    page = tmp_path / "page.html"
    compare.main([str(tmp_path / "s"), "--plot", str(tmp_path / "figure.pdf"), "--html", str(page)])
    sentence = "The importance of the settings is not drawn: it needs at least 10 trials with a value, and there are 2."
    assert f"no figure    {sentence}\n" in capsys.readouterr().out
    assert sentence in page.read_text()


def test_tensorboard(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "outputs" / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0, 1]}, accuracy)
    compare.main([str(tmp_path / "outputs"), "--tensorboard"])
    where = tmp_path / "outputs" / "s"
    assert f"TensorBoard  litlab tensorboard {where}: summaries of 2 groups" in capsys.readouterr().out
    assert list((where / "summary").rglob("events.out.tfevents.*"))
    with pytest.raises(UserError, match="expected a study"):
        compare.main([str(where / "0000_lr-0.1_seed-0"), "--tensorboard"])
    make_study(tmp_path / "one", {"optimizer.lr": [0.1, 0.2], "seed": [0]}, accuracy)
    compare.main([str(tmp_path / "one"), "--tensorboard"])
    assert "summaries of 0 groups, as none has two finished runs" in capsys.readouterr().out


def test_tensorboard_beside_what_can_not_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("good", "taken"):
        make_study(tmp_path / "outputs" / name, {"optimizer.lr": [0.1, 0.2], "seed": [0, 1]}, accuracy)
    (tmp_path / "outputs" / "taken" / "summary").touch()
    compare.main([str(tmp_path / "nowhere"), str(tmp_path / "outputs"), "--tensorboard"])
    output = capsys.readouterr().out.splitlines()[-2:]
    assert output[0].endswith("good: summaries of 2 groups")
    assert output[1].startswith(f"TensorBoard  skipped {tmp_path / 'outputs' / 'taken'}: ")
    assert "has the name of TensorBoard" in output[1]


@pytest.mark.parametrize("option", ["--output", "--html", "--plot"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("directory", r"file\.png is a directory; name a file in it"),
        ("pipe", "is a link, a pipe or a device, which would be replaced"),
        ("link", "is a link, a pipe or a device, which would be replaced"),
    ],
)
def test_only_files_are_replaced(option: str, kind: str, message: str, study: Path, tmp_path: Path) -> None:
    file, target = tmp_path / "file.png", tmp_path / "target"
    {"directory": Path.mkdir, "pipe": os.mkfifo, "link": lambda link: link.symlink_to(target)}[kind](file)
    with pytest.raises(UserError, match=message):
        compare.main([str(study), option, str(file)])
    assert {"directory": file.is_dir, "pipe": file.is_fifo, "link": file.is_symlink}[kind]()
    assert not target.exists()


def test_where_nothing_can_be_written(study: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"t\.csv can't be written: "):
        compare.main([str(study), "--output", str(tmp_path / "file" / "t.csv")])


def test_nothing_to_compare_is_an_error(study: Path) -> None:
    with pytest.raises(UserError) as error:
        compare.main([str(study / "damaged"), str(study / "nowhere")])
    first, *_, last = str(error.value).splitlines()
    assert first == "there is nothing to compare"
    assert last.endswith("nowhere: no such directory")


def test_many_runs_in_little_time(tmp_path: Path) -> None:
    axes = {"optimizer.lr": [0.001 * number for number in range(1, NUM_RUNS // 5 + 1)], "seed": list(range(5))}
    make_study(tmp_path / "s", axes, accuracy)
    began = time.process_time()
    render(compare_runs([tmp_path / "s"]), "table")
    assert time.process_time() - began < NUM_RUNS * AT_MOST_A_RUN
