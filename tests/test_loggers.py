"""Loggers: what each gets, in which order they are, and how a missing package is reported."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign_tasks import overrides
from support.recording import Recording
from support.runs import TINY, TINY_WITH_PICTURES, Command, compose_config, train_here

from litlab.config.trust import ALLOWED_TARGETS
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

HERE = "test_loggers"
pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")


def test_a_logger_of_ones_own_gets_config_metrics_pictures_and_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECORDING", "a-secret-value")
    node = "+logger.own={_target_: support.recording.Recording, token: '${oc.env:RECORDING}'}"
    run = train_here(tmp_path / "run", *TINY_WITH_PICTURES, node)
    logger, result = Recording.last, read_result(run)
    assert logger.token == "a-secret-value"
    (params,) = logger.params
    assert (params["optimizer"]["lr"], params["logger"]["own"]["token"]) == (0.05, "${oc.env:RECORDING}")
    logged = {name for _, values in logger.metrics for name in values}
    assert {"train/loss", "val/accuracy", "test/accuracy", "lr", "epoch"} <= logged
    assert logger.pictures.keys() >= {
        "train/images", "val/confusion_matrix", "test/confusion_matrix", "test/worst_mistakes",
    }  # fmt: skip
    assert logger.result is not None
    assert (logger.result.test, logger.result.weights) == (result["test"], result["weights"])


@pytest.mark.integrations
def test_csv_writes_pictures_as_files_and_nothing_for_tensorboard(tmp_path: Path) -> None:
    reference, run = (
        train_here(tmp_path / name, *TINY_WITH_PICTURES, f"logger={name}") for name in ("tensorboard", "csv")
    )
    assert list(reference.path.glob("events.*"))
    assert not list(run.path.glob("events.*"))
    pictures = {str(path.relative_to(run.path / "pictures")) for path in (run.path / "pictures").rglob("*.png")}
    tags = ("train/images", "val/confusion_matrix", "test/confusion_matrix", "test/worst_mistakes")
    assert pictures >= {f"{tag}.png" for tag in tags}
    for name in pictures:
        Image.open(run.path / "pictures" / name).verify()
    rows = [[row for row in read_metrics(each.metrics) if "throughput" not in row.metric] for each in (reference, run)]
    assert rows[0] == rows[1]


def test_loggers_compose_in_lists() -> None:
    assert list(compose_config(*TINY, "logger=[csv,tensorboard]")["logger"]) == ["csv", "tensorboard"]
    many = compose_config(*TINY, "logger=many", "logger.wandb.offline=true")["logger"]
    assert [node["_target_"].rpartition(".")[2] for node in many.values()] == ["TensorBoard", "WandB", "MLflow"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["logger=wandb"], "logger.wandb: needs the package wandb, which is not installed here: pip install wandb"),
        (["logger=mlflow"], "logger.mlflow: needs the package mlflow, which is not installed here: pip install mlflow"),
        (["logger=wandb", "logger.wandb.offline=maybe"], "logger.wandb.offline=maybe: expected a valid boolean"),
        (["logger=mlflow", "logger.mlflow.uri=x"], "logger.mlflow.uri"),
    ],
)
def test_a_missing_package_or_a_wrong_setting_is_refused_before_anything_is_written(
    arguments: list[str], message: str, litlab: Command, tmp_path: Path
) -> None:
    done = litlab("train", *TINY, *arguments)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "project").iterdir()) == []


def test_an_untrusted_run_may_not_log_to_other_machines() -> None:
    assert ALLOWED_TARGETS["logger"] == {"litlab.loggers.TensorBoard", "litlab.loggers.CSV"}


class Own(ModelCheckpoint):
    """Checkpoints as in a script for the plain Trainer: without a folder, and with `last.ckpt`."""

    def __init__(self) -> None:
        super().__init__(monitor="train_loss_epoch", mode="min", save_last=True, save_on_train_epoch_end=True)


def test_checkpoints_of_a_users_callback_have_a_folder_of_their_own(tmp_path: Path) -> None:
    arguments = (*overrides("tutorial"), f"+callbacks.own._target_={HERE}.Own")
    run, config = new_run(tmp_path / "run", *arguments)
    assert train_until(run, config, None)
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert (run.path / "model_checkpoints" / "last.ckpt").is_file()
    resumed = stop_and_resume(tmp_path / "resumed", 6, *arguments)
    saved, expected = outcome(resumed), outcome(run)
    for state in (saved["last"], expected["last"], saved["best"], expected["best"]):
        del state["callbacks"]  # with the paths of its files
    assert not differences(expected, saved)


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestWarning")
def test_wandb_gets_everything_offline_and_a_resume_continues_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("RECORDING", "a-secret-value")
    settings = ("logger=wandb", "logger.wandb.offline=true", "logger.wandb.tags=[first]", "logger.wandb.project=shapes")
    node = "+logger.own={_target_: support.recording.Recording, token: '${oc.env:RECORDING}'}"
    run = stop_and_resume(tmp_path / "study" / "run", 8, *TINY_WITH_PICTURES, *settings, node)
    files = sorted(run.path.glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2, "one for each start"
    ids, config, history, summary, exits = set(), {}, [], {}, []
    for file in files:
        for record in wandb_records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
                assert (record.run.project, record.run.run_group) == ("shapes", "study")
                assert (record.run.display_name, list(record.run.tags)) == ("run", ["first"])
            elif kind == "config":
                config |= {item.key: json.loads(item.value_json) for item in record.config.update}
            elif kind == "history":
                history.append(
                    {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
                )
            elif kind == "summary":
                summary |= {
                    item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.summary.update
                }
            elif kind == "exit":
                exits.append(record.exit.exit_code)
    assert ids == {json.loads(run.loggers.read_text())["wandb"]}
    assert (config["optimizer"]["lr"], config["logger"]["own"]["token"]) == (0.05, "${oc.env:RECORDING}")
    assert b"a-secret-value" not in b"".join(file.read_bytes() for file in files)
    result = read_result(run)
    values = {(row["trainer/global_step"], name): value for row in history for name, value in row.items()}
    rows = [row for row in read_metrics(run.metrics) if row.metric in ("train/loss", "val/accuracy")]
    assert len(rows) > 4
    assert all(values[row.step, row.metric] == pytest.approx(row.value) for row in rows)
    names = {name.partition(".")[0] for row in history for name in row}
    assert {"train/images", "test/confusion_matrix", "test/worst_mistakes"} <= names
    assert list(run.path.glob("wandb/offline-run-*/files/media/images/**/*.png"))
    assert summary["result/status"] == "completed"
    assert summary["result/test/accuracy"] == pytest.approx(result["test"]["test/accuracy"])
    assert exits[-1] == 0


def wandb_records(file: Path) -> Any:
    """Read the records of a file that W&B writes offline: a log of LevelDB after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, position, data = file.read_bytes(), 7, b""
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:  # no room for the header of a part in this block
            position += left
            continue
        _, length, part = struct.unpack_from("<IHB", content, position)
        data += content[position + 7 : position + 7 + length]
        position += 7 + length
        if part in (1, 4):  # the whole record, or its last part
            record = Record()
            record.ParseFromString(data)
            yield record
            data = b""


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("store", ["in the project", "in a folder"])
def test_mlflow_gets_everything_and_a_resume_continues_its_run(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("RECORDING", "a-secret-value")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    if store == "in a folder":
        uri = f"sqlite:///{tmp_path}/elsewhere.db"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    settings = ("logger=mlflow", "logger.mlflow.experiment=shapes", "+logger.mlflow.tags.first=yes")
    node = "+logger.own={_target_: support.recording.Recording, token: '${oc.env:RECORDING}'}"
    run = stop_and_resume(tmp_path / "study" / "run", 8, *TINY_WITH_PICTURES, *settings, node)
    client, result = MlflowClient(uri), read_result(run)
    experiment = client.get_experiment_by_name("shapes")
    (logged,) = client.search_runs([experiment.experiment_id])
    assert logged.info.run_id == json.loads(run.loggers.read_text())["mlflow"]
    assert (logged.info.status, logged.info.run_name) == ("FINISHED", "run")
    assert (logged.data.tags["first"], logged.data.tags["result/status"]) == ("yes", "completed")
    assert (logged.data.params["optimizer.lr"], logged.data.params["logger.own.token"]) == (
        "0.05",
        "${oc.env:RECORDING}",
    )
    assert logged.data.metrics["result/test/accuracy"] == pytest.approx(result["test"]["test/accuracy"])
    for metric in ("train/loss", "val/accuracy"):
        values = {point.step: point.value for point in client.get_metric_history(logged.info.run_id, metric)}
        rows = {row.step: row.value for row in read_metrics(run.metrics) if row.metric == metric}
        assert values == pytest.approx(rows)
    artifacts = {
        item.path
        for folder in ("", "test", "val", "train")
        for item in client.list_artifacts(logged.info.run_id, folder)
    }
    assert {"config.yaml", "test/confusion_matrix.png", "test/worst_mistakes.png", "train/images.png"} <= artifacts


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_run_that_mlflow_has_lost_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from litlab.errors import UserError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run, config = new_run(tmp_path / "run", *TINY, "logger=mlflow")
    assert train_until(run, config, 5) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    with pytest.raises(
        UserError, match=r"other\.db has no run .*, which .*loggers\.json names: set MLFLOW_TRACKING_URI"
    ):
        train_until(run, config, None)


@pytest.mark.integrations
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::FutureWarning")
def test_jobs_that_start_at_once_share_a_new_store(
    tmp_path: Path, litlab: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it in a process that has used a store
    settings = ("logger=mlflow", "hydra.launcher.jobs=2", "study.name=both")
    done = litlab("train", "-m", *TINY, *settings, "seed=0,1", MLFLOW_DISABLE_TELEMETRY="true")
    assert (done.returncode, done.stderr) == (0, "")
    client = MlflowClient(f"sqlite:///{tmp_path}/project/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("litlab").experiment_id])
    assert {run.info.run_name for run in runs} == {"0000_seed-0", "0001_seed-1"}
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_two_jobs_have_an_id_each(tmp_path: Path) -> None:
    from litlab.loggers import _recorded_id

    first, second = RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "b")
    for run in (first, second):
        run.path.mkdir()
    ids = [_recorded_id(run, "wandb", iter(run.path.name).__next__) for run in (first, second, first)]
    assert ids == ["a", "b", "a"]
    assert _recorded_id(first, "mlflow") is None
