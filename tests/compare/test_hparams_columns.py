"""The columns of TensorBoard's HParams page: what varies in a study, in its type, and the final metrics."""

from pathlib import Path
from typing import Any

from support.studies import CONFIG, make_study
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams import api_pb2, metadata

from litlab.compare.tensorboard import EXPERIMENT, FOLDER, write_summaries
from litlab.sweep.study import Plan


def experiment(study: Path) -> Any:
    (file,) = (study / FOLDER).rglob(EXPERIMENT)
    (value,) = (value for event in EventFileLoader(str(file)).Load() for value in event.summary.value)
    return metadata.parse_experiment_plugin_data(value.metadata.plugin_data.content)


def test_the_page_of_hparams_has_what_varies_and_final_metrics(tmp_path: Path) -> None:
    axes = {"optimizer.lr": [0.01, 0.1], "data.flip": [True, False], "model.widths": [[2, 4]], "seed": list(range(12))}
    make_study(tmp_path / "study", axes, lambda point: 0.5)
    write_summaries(tmp_path / "study")
    found = experiment(tmp_path / "study")
    infos = {info.name: info for info in found.hparam_infos}
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
    assert [(info.name.tag, info.display_name) for info in found.metric_infos] == [
        ("result/best/val/accuracy", "best val/accuracy"),
        ("result/last/val/accuracy", "last val/accuracy"),
        ("result/test/accuracy", "test/accuracy"),
        ("result/test/loss", "test/loss"),
        ("result/best/val/loss", "best val/loss"),
        ("result/last/val/loss", "last val/loss"),
    ]


def test_columns_are_there_before_a_job_has_ended(tmp_path: Path) -> None:
    runs = make_study(tmp_path / "study", {"optimizer.lr": [0.01, 0.1], "seed": [0, 1]}, lambda point: 0.5)
    for run in runs:
        run.result.unlink()
        run.metrics.unlink()
    assert write_summaries(tmp_path / "study") == 0
    found = experiment(tmp_path / "study")
    assert [info.name for info in found.hparam_infos] == ["optimizer.lr", "seed"]
    assert [info.display_name for info in found.metric_infos] == [
        "best val/accuracy", "last val/accuracy", "test/accuracy",
    ]  # fmt: skip


def test_columns_are_there_before_a_search_has_jobs(tmp_path: Path) -> None:
    plan = Plan("search", {"optimizer.lr": ["interval(0.01,1)"]}, CONFIG, ["-m"], {}, {}, str(tmp_path), "no time")
    (tmp_path / "study.yaml").write_text(plan.to_yaml())
    assert write_summaries(tmp_path) == 0
    (info,) = experiment(tmp_path).hparam_infos
    assert (info.name, info.differs, info.WhichOneof("domain")) == ("optimizer.lr", True, None)
