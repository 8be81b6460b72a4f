"""Output files that `litlab compare` refuses before it reads a run."""

import os
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support.studies import make_study

from litlab.cli import compare
from litlab.compare.output_files import save_figures, svg, write_output
from litlab.errors import UserError


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("outputs") / "s"
    for run in make_study(path, {"optimizer.lr": [0.1, 0.2], "seed": [0]}, lambda point: point["optimizer.lr"]):
        (run.path / "checkpoints").mkdir()
        run.last.touch()
        (run.path / "events.out.tfevents.1.host.1.0").touch()
    return path


@pytest.mark.parametrize("option", ["--output", "--html", "--plot"])
@pytest.mark.parametrize(
    "name",
    [
        "study.yaml", "jobs.jsonl", "RUN/config.yaml", "RUN/result.json", "RUN/metrics.csv", "RUN/provenance.json",
        "RUN/events.out.tfevents.1.host.1.0", "RUN/checkpoints/last.ckpt", "RUN/dataset.json",
    ],
)  # fmt: skip
def test_files_of_runs_are_never_replaced(option: str, name: str, study: Path) -> None:
    file = study / name.replace("RUN", "0000_lr-0.1_seed-0")
    before = file.read_bytes() if file.exists() else None
    with pytest.raises(UserError, match=r"is a file of a run or a study; choose another"):
        compare.main([str(study), option, str(file)])
    assert (file.read_bytes() if file.exists() else None) == before


def test_through_a_link_to_the_study(study: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(study)
    with pytest.raises(UserError, match=r"is a file of a run or a study"):
        compare.main([str(study), "--output", str(tmp_path / "link" / "jobs.jsonl")])


def test_an_earlier_output_in_a_study_is_replaced(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("csv", "markdown"):
        compare.main([str(study), "--format", form, "--output", str(study / "table.txt")])
    assert (study / "table.txt").read_text().startswith("|")
    assert compare.main([str(study)]) is None
    assert "Skipped" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--plot", "figure.jpg"], r"a figure can be written as png, svg, pdf; end its name in one of these"),
        (["--plot", "figure"], "a figure can be written as"),
        (["--plot", "figure.PDF.gz"], "a figure can be written as"),
        (["--plot", ".png"], "a figure can be written as"),
        (["--output", "x.pdf", "--html", "folder/../x.pdf"], r"x\.pdf is named twice"),
        (["--html", "x.pdf", "--plot", "folder/../x.pdf"], r"x\.pdf is named twice"),
        (["--plot", "x.pdf", "--plot", "x.pdf"], r"x\.pdf is named twice"),
        (["--output", "x" * 300], "can't be written: File name too long"),
    ],
)
def test_files_are_checked_first(
    options: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=message):
        compare.main(["nowhere", *options])  # without runs, which would be an error of its own
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("option", ["--output", "--html", "--plot"])
def test_no_folder_is_created_at_the_root(option: str, study: Path) -> None:
    top = Path("/litlab-no-such-folder")
    with pytest.raises(UserError, match=rf"{top}/new/x\.png: there is no folder {top}; create it, or name a file in"):
        compare.main([str(study), option, f"{top}/new/x.png"])
    assert not top.exists()


def test_saved_figures(tmp_path: Path) -> None:
    file = tmp_path / "new" / "one.SVG"
    figure = Figure()
    figure.text(0.5, 0.5, "text")
    assert save_figures({"curves": figure}, file) == [file]
    assert svg(figure).startswith("<svg")
    assert "<text" not in file.read_text(), "but paths"
    with pytest.raises(UserError, match="nothing to draw"):
        save_figures({}, file)
    with pytest.raises(UserError, match=r"one\.SVG/page\.html can't be written"):
        write_output(file / "page.html", "text")


@pytest.mark.parametrize("kind", ["pipe", "link", "directory"])
def test_generated_figure_names_replace_no_other_files(kind: str, study: Path, tmp_path: Path) -> None:
    """`x-curves.png` of `x.png`; nothing is written if one of them can't be."""
    target = tmp_path / "x-lr.png"
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to(tmp_path / "linked"), "directory": Path.mkdir}[kind](
        target
    )
    with pytest.raises(UserError, match=r"x-lr\.png is a (directory|link, a pipe or a device)"):
        compare.main([str(study), "--plot", str(tmp_path / "x.png")])
    assert list(tmp_path.iterdir()) == [target]
