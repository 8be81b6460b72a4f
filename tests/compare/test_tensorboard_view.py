"""A view over several studies: names that read as settings, links that follow the runs, nothing written into them."""

import math
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from support.hparams_page import sessions
from support.processes import wait_until
from support.studies import make_run, make_study

from litlab.cli import tensorboard
from litlab.compare import tensorboard_view
from litlab.compare.tensorboard_summary import write_summaries
from litlab.compare.tensorboard_view import MAX_NAME, View, newest_runs
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result, read_result
from litlab.runs.state import RunStatus
from litlab.tensorboard_session import PREFIX, LoggedSummary, end_session, scalars, start_session, write_events

EVENTS = PREFIX + "1795436227.host.1.0"


def log(run: RunDirectory) -> None:
    """Log for TensorBoard by the code of a run; its curves are a single point."""
    write_events(run.path / EVENTS, [LoggedSummary(scalars({"val/accuracy": 0.5}), 10, 1795436227.0)])
    config = run.read_config()
    start_session(run, config)
    end_session(run, config, Result(**read_result(run) | {"status": RunStatus.COMPLETED}))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two studies, each of which fixes the setting that the other sweeps, and two single runs."""
    folder = tmp_path_factory.mktemp("made")
    for name, axes in (
        ("first", {"optimizer.lr": [0.01, 0.1], "seed": [0, 1]}),
        ("second", {"model.widths": [[2, 4], [4, 8]], "seed": [0, 1]}),
    ):
        for run in make_study(folder / name, axes, lambda point: 0.5 + point["seed"] / 8):
            log(run)
    for lr, day in ((0.1, 30), (0.2, 31)):
        name = f"2026-01-{day}_12-00-59_ab12cd"
        log(make_run(folder / "shapes_cnn" / name, {"optimizer.lr": lr}, 0.75))
    return folder


@pytest.fixture
def outputs(made: Path, tmp_path: Path) -> Path:
    """Copy the studies for a test that changes them."""
    return Path(shutil.copytree(made, tmp_path / "outputs"))


@pytest.fixture
def view_folder(tmp_path: Path) -> Path:
    (tmp_path / "view").mkdir()
    return tmp_path / "view"


def test_names_read_as_settings(outputs: Path, view_folder: Path) -> None:
    """Every run shows all settings that vary over the whole, and the final metrics of its result."""
    View(outputs, view_folder).refresh()
    rows = sessions(view_folder)
    assert set(rows) == {
        *(f"first/lr={lr} seed={seed}" for lr in ("0.01", "0.1") for seed in (0, 1)),
        *(f"second/widths={widths} seed={seed}" for widths in ("[2,4]", "[4,8]") for seed in (0, 1)),
        "shapes_cnn/lr=0.1 2026-01-30 12:00",
        "shapes_cnn/lr=0.2 2026-01-31 12:00",
    }
    assert rows["first/lr=0.01 seed=1"].settings == {"optimizer.lr": 0.01, "model.widths": "[2,4]", "seed": 1}
    of_second = {"optimizer.lr": 0.05, "model.widths": "[4,8]", "seed": 0}
    assert rows["second/widths=[4,8] seed=0"].settings == of_second
    of_single = {"optimizer.lr": 0.2, "model.widths": "[2,4]", "seed": 0}
    assert rows["shapes_cnn/lr=0.2 2026-01-31 12:00"].settings == of_single
    metrics = rows["first/lr=0.1 seed=1"].metrics
    assert (metrics["result/best/val/accuracy"], metrics["result/test/accuracy"]) == (0.625, 0.625)


def test_summaries_of_the_studies_are_shown_but_not_their_columns(outputs: Path, view_folder: Path) -> None:
    for name in ("first", "second"):
        write_summaries(outputs / name)
    View(outputs, view_folder).refresh()
    links = {str(path.relative_to(view_folder)) for path in view_folder.rglob(f"{PREFIX}*") if "summary" in path.parts}
    assert {Path(link).parent.as_posix() for link in links} == {
        "first/summary/lr=0.01", "first/summary/lr=0.1",
        "second/summary/widths=[2,4]", "second/summary/widths=[4,8]",
    }  # fmt: skip
    assert [path.parent.name for path in view_folder.rglob("*.experiment")] == ["lr=0.01 seed=0"]  # which has curves


def test_nothing_is_written_into_the_studies_and_a_second_refresh_changes_nothing(
    outputs: Path, view_folder: Path
) -> None:
    def times(folder: Path) -> dict[Path, int]:
        return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}

    before, view = times(outputs), View(outputs, view_folder)
    view.refresh()
    first = times(view_folder)
    view.refresh()
    assert (times(outputs), times(view_folder)) == (before, first)


def test_it_follows_the_runs(outputs: Path, view_folder: Path) -> None:
    view = View(outputs, view_folder)
    view.refresh()
    (run,) = outputs.glob("first/0000*")
    folder = view_folder / "first" / "lr=0.01 seed=0"
    (run / (PREFIX + "1795436299.host.2.0")).write_bytes((run / EVENTS).read_bytes())
    (end,) = run.glob(PREFIX + "9*")
    end.unlink()  # it is resumed
    (run / "result.json").unlink()
    log(make_run(outputs / "shapes_cnn" / "2026-02-01_12-00-00_ab12cd", {"optimizer.lr": 0.3}, 0.75))
    view.refresh()
    names = {path.name for path in folder.iterdir()}
    assert PREFIX + "1795436299.host.2.0" in names
    assert end.name not in names
    assert all(path.exists() for path in view_folder.rglob("*"))  # no link leads nowhere
    assert "shapes_cnn/lr=0.3 2026-02-01 12:00" in sessions(view_folder)
    for file in (outputs / "shapes_cnn" / "2026-02-01_12-00-00_ab12cd").iterdir():
        file.unlink() if file.is_file() else file.rmdir()
    view.refresh()
    assert not (view_folder / "shapes_cnn" / "lr=0.3 2026-02-01 12:00").exists()


def test_damaged_runs_are_named_and_the_others_shown(outputs: Path, view_folder: Path) -> None:
    (damaged,) = outputs.glob("first/0000*")
    (damaged / "config.yaml").write_text("]")
    os.mkfifo(outputs / "second" / "0000_widths-[2,4]_seed-0" / (PREFIX + "1795436300.host.3.0"))
    view = View(outputs, view_folder)
    view.refresh()
    assert [entry.path for entry in view.skipped] == [damaged]
    assert len(sessions(view_folder)) == 9


def test_equal_names_of_runs_are_numbered(tmp_path: Path, view_folder: Path) -> None:
    for end in ("aaaaaa", "bbbbbb"):
        log(make_run(tmp_path / "outputs" / "cnn" / f"2026-01-31_12-00-00_{end}", {}, 0.5))
    View(tmp_path / "outputs", view_folder).refresh()
    assert set(sessions(view_folder)) == {"cnn/2026-01-31 12:00", "cnn/2026-01-31 12:00 (2)"}


def test_equal_names_of_studies_are_numbered(tmp_path: Path, view_folder: Path) -> None:
    for number, seconds in enumerate(("00", "30")):
        study = tmp_path / "outputs" / "cnn" / f"multirun_2026-01-31_12-00-{seconds}_ab12c{number}"
        for run in make_study(study, {"seed": [0, 1]}, lambda point: 0.5):
            log(run)
        write_summaries(study)
    View(tmp_path / "outputs", view_folder).refresh()
    names = [f"cnn/multirun_2026-01-31 12:00{number}" for number in ("", " (2)")]
    assert set(sessions(view_folder)) == {f"{name}/seed={seed}" for name in names for seed in (0, 1)}
    means = [path.resolve().parents[2].name for name in names for path in (view_folder / name).rglob("*.means")]
    assert means == sorted(path.name for path in (tmp_path / "outputs" / "cnn").iterdir())


def test_names_of_runs_are_short_and_unique(tmp_path: Path, view_folder: Path) -> None:
    """They differ only where they are cut."""
    study = tmp_path / "outputs" / ("long_" * 10) / "multirun_2026-01-31_12-00-00_ab12cd"
    hidden = ["y" * 40 + letter + "z" * 40 for letter in "ab"]
    for run in make_study(study, {"model.hidden": hidden, "seed": [0, 1]}, lambda point: 0.5):
        log(run)
    assert write_summaries(study) == 2
    view = View(tmp_path / "outputs", view_folder)
    for _ in range(2):
        view.refresh()
        folders = {str(file.parent.relative_to(view_folder)) for file in view_folder.rglob(f"{PREFIX}*")}
        assert (len(folders), max(map(len, folders))) == (6, MAX_NAME)
        assert sum("/summary/" in folder for folder in folders) == 2
        names = {name.rpartition("/")[2] for name in sessions(view_folder)}
    assert {name[:9] for name in names} == {"hidden=yy"}
    assert {name.partition(" (")[0][-6:] for name in names} == {"seed=0", "seed=1"}


def test_of_too_many_runs_the_newest_are_shown(
    outputs: Path, view_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorboard_view, "MAX_RUNS", 6)
    write_summaries(outputs / "first")  # of two groups
    events = sorted(outputs.glob(f"*/*/{EVENTS}"))
    for number, file in enumerate(events):
        for other in file.parent.glob(f"{PREFIX}*"):
            os.utime(other, (number, number))
    view = View(outputs, view_folder)
    view.refresh()
    newest = {"second/widths=[4,8] seed=0", "second/widths=[4,8] seed=1"}
    newest |= {"shapes_cnn/lr=0.1 2026-01-30 12:00", "shapes_cnn/lr=0.2 2026-01-31 12:00"}
    assert (set(sessions(view_folder)), view.num_left_out) == (newest, 6)
    os.utime(events[0], (20, 20))
    view.refresh()
    assert set(sessions(view_folder)) == newest - {"second/widths=[4,8] seed=0"} | {"first/lr=0.01 seed=0"}
    first, second, *runs = newest_runs(view_folder)
    assert {first, second} == {"first/summary/lr=0.01", "first/summary/lr=0.1"}
    assert runs[:2] == ["first/lr=0.01 seed=0", "shapes_cnn/lr=0.2 2026-01-31 12:00"]
    with tensorboard._logdir(outputs / "first") as shown:
        assert shown == outputs / "first"
    with tensorboard._logdir(outputs):
        assert "so the oldest 6 are left out; name a folder in" in capsys.readouterr().err


def test_a_study_of_too_many_runs_is_shown_as_a_view(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorboard_view, "MAX_RUNS", 3)
    with tensorboard._logdir(outputs / "first") as shown:
        assert len(newest_runs(shown)) == 3


def test_a_number_that_json_does_not_have_is_a_text(tmp_path: Path, view_folder: Path) -> None:
    for lr, end in ((0.1, "aaaaaa"), (math.inf, "bbbbbb")):
        log(make_run(tmp_path / "outputs" / "cnn" / f"2026-01-31_12-00-00_{end}", {"optimizer.lr": lr}, 0.5))
    View(tmp_path / "outputs", view_folder).refresh()
    assert [row.settings["optimizer.lr"] for row in sessions(view_folder).values()] == [0.1, "inf"]


def test_the_view_is_updated_and_an_error_is_printed_once(
    outputs: Path, view_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tensorboard, "INTERVAL", 0.01)
    monkeypatch.setattr(tensorboard, "_MAX_LOAD", 1.0)
    with tensorboard._updated_view(outputs, view_folder):
        num_threads = threading.active_count()
        log(make_run(outputs / "shapes_cnn" / "2026-02-01_12-00-00_ab12cd", {"optimizer.lr": 0.3}, 0.75))
        new = view_folder / "shapes_cnn" / "lr=0.3 2026-02-01 12:00"
        wait_until(new.is_dir)
        (view_folder / "third").write_text("in the way")
        log(make_run(outputs / "third" / "2026-02-01_12-00-00_ab12cd", {}, 0.75))
        printed: list[str] = []
        wait_until(lambda: (printed.append(capsys.readouterr().err), any(printed))[1])
        time.sleep(0.3)
        printed.append(capsys.readouterr().err)
    assert "".join(printed).count("the view is not up to date") == 1
    assert threading.active_count() == num_threads - 1


def test_a_single_study_needs_no_view(outputs: Path) -> None:
    with tensorboard._logdir(outputs / "first") as shown:
        assert shown == outputs / "first"
    with tensorboard._logdir(outputs) as shown:
        assert (shown / "first" / "lr=0.1 seed=0" / EVENTS).is_symlink()
    assert not shown.exists()


def test_a_single_run_has_its_final_metrics_and_no_others(outputs: Path) -> None:
    (run,) = outputs.glob("first/0000*")
    with tensorboard._logdir(run) as shown:
        (row,) = sessions(shown).values()
    assert row.settings == {"seed": 0.0}
    assert {tag.partition("/")[0] for tag in row.metrics} == {"result"}
    assert row.metrics["result/best/val/accuracy"] == pytest.approx(read_result(RunDirectory(run))["objective"])
