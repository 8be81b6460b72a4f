"""TensorBoard summary of a study: means, intervals, and the columns of the HParams page."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.studies import CONFIG, accuracy_interval, make_study
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import api_pb2, metadata

from litlab.cli import status
from litlab.compare import tensorboard_summary
from litlab.compare.tensorboard_summary import (
    EXPERIMENT,
    FOLDER,
    LAYOUT,
    MEANS,
    folder_name,
    update_summary,
    write_summaries,
)
from litlab.errors import UserError
from litlab.sweep.study import Plan

AXES = {"optimizer.lr": [0.01, 0.1], "seed": [0, 1, 2]}


def accuracy(point: dict[str, Any], epoch: int = 0) -> float:
    return 0.5 + point.get("optimizer.lr", 0.0) + 0.01 * point["seed"] ** 2 + 0.05 * epoch


@pytest.fixture
def study(tmp_path: Path) -> Path:
    make_study(tmp_path / "study", AXES, accuracy)
    return tmp_path / "study"


def values_in(file: Path) -> Iterator[Any]:
    for event in EventFileLoader(str(file)).Load():
        for value in event.summary.value:
            yield event, value


def scalars(file: Path) -> dict[tuple[str, int], float]:
    return {(value.tag, event.step): value.tensor.float_val[0] for event, value in values_in(file)}


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.rglob("*") if file.is_file()}


def test_means_and_intervals_are_those_of_scipy(tmp_path: Path) -> None:
    """Unfinished runs are left out; a point has the time of a run of mean speed."""
    axes = AXES | {"seed": [0, 1, 2, 3]}
    status: Any = lambda point: "failed" if point["seed"] == 3 else "completed"  # noqa: E731
    make_study(tmp_path / "study", axes, accuracy, curve=accuracy, num_epochs=3, status=status)
    assert write_summaries(tmp_path / "study") == 2
    assert {path.name for path in (tmp_path / "study" / FOLDER).iterdir() if path.is_dir()} == {"lr=0.01", "lr=0.1"}
    for lr in AXES["optimizer.lr"]:
        points = scalars(tmp_path / "study" / FOLDER / f"lr={lr:g}" / MEANS)
        assert {tag.rpartition("/")[0] for tag, _ in points} == {"val/loss", "val/accuracy"}
        for epoch in range(3):
            values = [accuracy({"optimizer.lr": lr, "seed": seed}, epoch) for seed in AXES["seed"]]
            mean, step = sum(values) / 3, 10 * (epoch + 1)
            low, high = accuracy_interval(values)
            for curve, expected in (("mean", mean), ("lower", low), ("upper", high)):
                assert points[f"val/accuracy/{curve}", step] == pytest.approx(expected, rel=1e-6)
    events = [event for event, _ in values_in(tmp_path / "study" / FOLDER / "lr=0.1" / MEANS)]
    times = {event.step: event.wall_time - events[0].wall_time for event in events}  # 30 steps in 5 seconds
    assert times == {10: 0.0, 20: pytest.approx(5 / 3, rel=1e-3), 30: pytest.approx(10 / 3, rel=1e-3)}


def test_the_charts_show_the_objective_first(study: Path) -> None:
    write_summaries(study)
    (file,) = (study / FOLDER).rglob(LAYOUT)
    ((_, value),) = values_in(file)
    (category,) = layout_pb2.Layout.FromString(value.tensor.string_val[0]).category
    assert category.title == "mean over seeds or folds with 95 % interval"
    shown = category.chart[::-1]  # as the page turns them around; test_tensorboard_page.py looks at it
    assert [chart.title for chart in shown] == ["val/accuracy", "val/loss"]
    (series,) = shown[0].margin.series
    assert (series.value, series.lower, series.upper) == (
        "val/accuracy/mean", "val/accuracy/lower", "val/accuracy/upper",
    )  # fmt: skip


def test_twice_changes_nothing_and_a_copy_has_the_same_bytes(tmp_path: Path) -> None:
    for name in ("study", "copy"):
        make_study(tmp_path / name, AXES, accuracy)
        write_summaries(tmp_path / name)
    before = snapshot(tmp_path / "study")
    assert write_summaries(tmp_path / "study") == 2
    assert snapshot(tmp_path / "study") == before
    contents = [[content for _, content in snapshot(tmp_path / name / FOLDER).values()] for name in ("study", "copy")]
    assert sorted(contents[0]) == sorted(contents[1])
    assert not list((tmp_path / "study").rglob("*.tmp"))


def test_only_steps_that_all_runs_have_and_finite_values_are_averaged(tmp_path: Path) -> None:
    runs = make_study(tmp_path / "study", {"seed": [0, 1]}, accuracy, num_epochs=4)
    rows = runs[0].metrics.read_text().splitlines(keepends=True)
    kept = [row for row in rows if not row.startswith("3,")]  # it stopped early
    runs[0].metrics.write_text("".join(kept).replace("1,20,val/loss,", "1,20,val/loss,nan\n1,21,val/other,"))
    write_summaries(tmp_path / "study")
    points = scalars(tmp_path / "study" / FOLDER / "all runs" / MEANS)
    assert {step for tag, step in points if tag == "val/accuracy/mean"} == {10, 20, 30}
    assert {step for tag, step in points if tag == "val/loss/mean"} == {10, 30}
    assert not any(tag.startswith("val/other") for tag, _ in points)
    assert all(math.isfinite(value) for value in points.values())


def test_groups_of_one_run_get_none(tmp_path: Path) -> None:
    make_study(tmp_path / "study", {"optimizer.lr": [0.01, 0.1, 1.0]}, lambda point: 0.5)
    assert write_summaries(tmp_path / "study") == 0
    assert [path.name for path in (tmp_path / "study" / FOLDER).iterdir()] == [EXPERIMENT]


def test_files_of_removed_groups_are_removed_and_others_stay(tmp_path: Path) -> None:
    runs = make_study(tmp_path / "study", AXES, accuracy)
    folder = tmp_path / "study" / FOLDER
    write_summaries(tmp_path / "study")
    (folder / "lr=0.01" / "notes.txt").write_text("mine")
    for run in runs[1:]:
        run.metrics.write_bytes(b"\xff\xfe damaged")
    runs[0].metrics.unlink()
    os.mkfifo(runs[0].metrics)  # which is not waited for
    assert write_summaries(tmp_path / "study") == 0
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [
        EXPERIMENT, "lr=0.01", "lr=0.01/notes.txt",
    ]  # fmt: skip


def test_columns_and_charts_make_no_run_without_curves(tmp_path: Path) -> None:
    runs = make_study(tmp_path / "study", AXES, accuracy)
    contents = [(run, run.result.read_bytes()) for run in runs]
    for run in runs:
        run.result.unlink()
    write_summaries(tmp_path / "study")  # at its start
    folder = tmp_path / "study" / FOLDER
    assert [path.name for path in folder.iterdir()] == [EXPERIMENT]
    for first, others in (("lr=0.1", contents[3:]), ("lr=0.01", contents[:3])):
        for run, content in others:
            run.result.write_bytes(content)
        write_summaries(tmp_path / "study")
        assert all(path.is_dir() for path in folder.iterdir())
        assert [path.parent.name for name in (EXPERIMENT, LAYOUT) for path in folder.rglob(name)] == [first, first]


@pytest.mark.parametrize("row", [f"0,{'9' * 400},val/accuracy,0.5", "0,-5,val/accuracy,0.5", "0,40,val/accuracy,1e308"])
def test_values_that_tensorboard_cannot_show_are_left_out(row: str, tmp_path: Path) -> None:
    for run in make_study(tmp_path / "study", {"seed": [0, 1]}, accuracy):
        run.metrics.write_text(f"{run.metrics.read_text()}{row}\n")
    write_summaries(tmp_path / "study")
    assert {step for _, step in scalars(tmp_path / "study" / FOLDER / "all runs" / MEANS)} == {10, 20}


def test_status_is_the_same_with_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_study(tmp_path / "outputs" / "study", AXES, accuracy)
    outputs: list[str] = []
    for _ in range(2):
        for directory in (tmp_path / "outputs", tmp_path / "outputs" / "study"):
            status.main([str(directory)])
        outputs.append(capsys.readouterr().out)
        write_summaries(tmp_path / "outputs" / "study")
    assert outputs[0] == outputs[1]
    assert outputs[0].count("6 jobs: 6 completed") == 2


@pytest.mark.parametrize("name", ["", "config.yaml", "lr=0.01"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_obstacles_are_named_and_left_alone(name: str, kind: str, study: Path, tmp_path: Path) -> None:
    """In the place of the summary itself, of a group, or of the config of a run."""
    obstacle, elsewhere = study / FOLDER / name, tmp_path / "elsewhere"
    elsewhere.mkdir()
    obstacle.parent.mkdir(exist_ok=True)
    obstacle.write_text("mine") if kind == "file" else obstacle.symlink_to(elsewhere)
    with pytest.raises(UserError, match="has the name of TensorBoard"):
        write_summaries(study)
    assert not list(elsewhere.iterdir())


def test_errors_become_a_warning(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (study / FOLDER).write_text("mine")
    update_summary(study)
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert message.startswith(f"litlab: TensorBoard's summary of {study} is not up to date: ")


def test_progress_line_for_many_jobs(
    study: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for least, message in ((7, ""), (6, "litlab: bringing TensorBoard's summary of 6 jobs up to date\n")):
        monkeypatch.setattr("litlab.compare.tensorboard_summary.MANY_JOBS", least)
        update_summary(study)
        assert capsys.readouterr().err == message


def test_without_tensorboard_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIG, "logger", {"tensorboard": None})
    make_study(tmp_path / "study", AXES, accuracy)
    update_summary(tmp_path / "study")
    assert not (tmp_path / "study" / FOLDER).exists()


def test_only_studies_have_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"is no study: it has no study\.yaml"):
        write_summaries(tmp_path)


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("lr=0.1 widths=[2,4]", "lr=0.1 widths=[2,4]"),
        ("root=/a/b\x1b[2J", "root=_a_b_[2J"),
        ("..", "_.."),
        ("", "_"),
        ("a…b", "a..b"),
    ],
)
def test_names_of_folders(words: str, name: str) -> None:
    assert folder_name(words) == name


def test_long_names_are_cut_and_stay_different() -> None:
    names = {folder_name("ä" * 300 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name.encode()) <= 200 for name in names)


def experiment(study: Path) -> Any:
    (file,) = (study / FOLDER).rglob(EXPERIMENT)
    ((_, value),) = values_in(file)
    return metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)


def test_the_page_of_hparams_has_what_varies_and_final_metrics(tmp_path: Path) -> None:
    axes = {"optimizer.lr": [0.01, 0.1], "data.flip": [True, False], "model.widths": [[2, 4]], "seed": list(range(12))}
    make_study(tmp_path / "study", axes, lambda point: 0.5)
    write_summaries(tmp_path / "study")
    columns = experiment(tmp_path / "study")
    infos = {info.name: info for info in columns.hparam_infos}
    assert {name: info.display_name for name, info in infos.items()} == {
        "optimizer.lr": "lr", "data.flip": "flip", "model.widths": "widths", "seed": "seed",
    }  # fmt: skip
    kinds = [api_pb2.DATA_TYPE_FLOAT64, api_pb2.DATA_TYPE_BOOL, api_pb2.DATA_TYPE_STRING, api_pb2.DATA_TYPE_FLOAT64]
    assert [infos[key].type for key in axes] == kinds
    assert list(infos["optimizer.lr"].domain_discrete) == [0.01, 0.1]
    assert list(infos["data.flip"].domain_discrete) == [False, True]
    assert list(infos["model.widths"].domain_discrete) == ["[2,4]"]
    assert (infos["seed"].domain_interval.min_value, infos["seed"].domain_interval.max_value) == (0, 11)
    assert [infos[key].differs for key in axes] == [True, True, False, True]
    assert [(info.name.tag, info.display_name) for info in columns.metric_infos] == [
        ("result/best/val/accuracy", "best val/accuracy"),
        ("result/last/val/accuracy", "last val/accuracy"),
        ("result/test/accuracy", "test/accuracy"),
        ("result/test/loss", "test/loss"),
        ("result/best/val/loss", "best val/loss"),
        ("result/last/val/loss", "last val/loss"),
    ]


def test_the_most_important_settings_come_first_and_five_are_ticked() -> None:
    varying = ["seed", "data.flip", "task.head", "optimizer.momentum", "callbacks.ema.decay", "model", "optimizer.lr"]
    settings = {"data.crop": ["yes"], **{name: ["1", "2"] for name in varying}}
    (value,) = tensorboard_summary.experiment(settings, {}, 0.0).value
    infos = metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content).hparam_infos
    assert [info.name for info in infos] == [
        "optimizer.lr", "model", "optimizer.momentum", "data.flip", "task.head", "callbacks.ema.decay", "seed",
        "data.crop",
    ]  # fmt: skip
    assert [info.differs for info in infos] == [True] * 5 + [False] * 3


def test_columns_are_there_before_a_job_has_ended(tmp_path: Path) -> None:
    runs = make_study(tmp_path / "study", {"optimizer.lr": [0.01, 0.1], "seed": [0, 1]}, lambda point: 0.5)
    for run in runs:
        run.result.unlink()
        run.metrics.unlink()
    assert write_summaries(tmp_path / "study") == 0
    columns = experiment(tmp_path / "study")
    assert [info.name for info in columns.hparam_infos] == ["optimizer.lr", "seed"]
    assert [info.display_name for info in columns.metric_infos] == [
        "best val/accuracy", "last val/accuracy", "test/accuracy",
    ]  # fmt: skip


def test_columns_are_there_before_a_search_has_jobs(tmp_path: Path) -> None:
    plan = Plan("search", {"optimizer.lr": ["interval(0.01,1)"]}, CONFIG, ["-m"], {}, {}, str(tmp_path), "no time")
    (tmp_path / "study.yaml").write_text(plan.to_yaml())
    assert write_summaries(tmp_path) == 0
    (info,) = experiment(tmp_path).hparam_infos
    assert (info.name, info.differs, info.WhichOneof("domain")) == ("optimizer.lr", True, None)
