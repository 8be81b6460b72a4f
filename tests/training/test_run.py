"""Runs from end to end: their files, reproducibility, and two ranks against one."""

import json
from pathlib import Path

import pytest
import torch
from support.exact_resume import new_run, train_until
from support.hparams_page import sessions
from support.processes import processes_in
from support.runs import TINY, Command, KeepsToken, call_litlab, train_here
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litlab.config.config_file import from_yaml
from litlab.config.identity import identity
from litlab.config.schema import VALIDATION_METRICS
from litlab.errors import UserError
from litlab.inference.evaluate import evaluate
from litlab.inference.finished_run import FinishedRun
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.processor import processor_name
from litlab.runs.result import read_result
from litlab.training import build
from litlab.training.checkpoint_io import read_checkpoint, read_network_weights

UNEVEN = (
    *TINY, "data.num_test=211", "data.num_train=205", "data.val_size=43", "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
)  # fmt: skip


def weights(run: RunDirectory) -> dict[str, torch.Tensor]:
    return read_network_weights(run.last)


def test_files_of_a_run_directory(tiny_run: RunDirectory) -> None:
    config = from_yaml(tiny_run.config.read_text())
    assert config["name"] == "shapes_cnn"
    assert config["threads"] == 1
    assert "${" not in tiny_run.config.read_text()
    facts = json.loads(tiny_run.dataset.read_text())
    assert (facts["num_train"], facts["num_val"], facts["num_test"]) == (160, 40, 53)
    assert len(facts["class_names"]) == 10
    machine = json.loads(tiny_run.provenance.read_text())["machine"]
    assert machine["threads"] == 1
    assert machine["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert {path.name for path in tiny_run.checkpoints.iterdir()} == {"best.ckpt", "last.ckpt", "previous.ckpt"}
    names = {path.name.partition(".")[0] for path in tiny_run.path.iterdir()}
    assert names == {"config", "dataset", "provenance", "metrics", "events", "checkpoints", "result", ""}  # "": .hydra


def test_result_agrees_with_metrics_and_best_checkpoint(tiny_run: RunDirectory) -> None:
    result = read_result(tiny_run)
    assert set(result["best"]) == set(VALIDATION_METRICS)
    rows = read_metrics(tiny_run.metrics)
    objective = {row.step: row.value for row in rows if row.metric == "val/accuracy"}
    assert list(objective) == [10, 20]
    assert result["objective"] == max(objective.values()) == result["best"]["val/accuracy"]
    assert result["last"]["val/accuracy"] == objective[20]
    best_step = max(objective, key=lambda step: (objective[step], -step))
    assert read_checkpoint(tiny_run.best)["global_step"] == best_step
    assert (result["epochs"], result["steps"]) == (2, 20)
    assert {row.value for row in rows if row.metric == "test/accuracy"} == {result["test"]["test/accuracy"]}
    num_right = result["test"]["test/accuracy"] * 53
    assert num_right == pytest.approx(round(num_right), abs=1e-4)


def test_tensorboard_shows_the_values_of_metrics_csv_and_the_config(tiny_run: RunDirectory) -> None:
    shown: dict[tuple[str, int], float] = {}
    texts = []
    for file in tiny_run.path.glob("events.*"):
        events = EventAccumulator(str(file), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        tags = events.Tags()
        shown |= {(tag, event.step): event.value for tag in tags["scalars"] for event in events.Scalars(tag)}
        texts += [event for tag in tags["tensors"] if not tag.startswith("_hparams_/") for event in events.Tensors(tag)]
    rows = read_metrics(tiny_run.metrics)
    logged = {"train/loss", "train/accuracy", "lr", "val/loss", "val/accuracy", "test/accuracy"}
    assert {row.metric for row in rows} >= logged
    for row in rows:
        assert shown[row.metric, row.step] == pytest.approx(row.value, rel=1e-6)
    (text,) = texts
    lines = text.tensor_proto.string_val[0].decode().splitlines()
    assert [line.removeprefix("    ") for line in lines] == tiny_run.config.read_text().splitlines()


def test_a_secret_reaches_its_object_but_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITLAB_TEST_CANARY", "canary-4711")
    token = "+callbacks.keeper={_target_: support.runs.KeepsToken, token: '${oc.env:LITLAB_TEST_CANARY}'}"
    run = train_here(tmp_path / "run", *TINY, "trainer.max_epochs=1", token)
    assert KeepsToken.seen == "canary-4711"
    files = [path for path in run.path.rglob("*") if path.is_file()]
    assert len(files) > 7
    assert [path for path in files if b"canary-4711" in path.read_bytes()] == []
    frozen = from_yaml(run.config.read_text())
    assert frozen["callbacks"]["keeper"]["token"] == "${oc.env:LITLAB_TEST_CANARY}"
    assert read_result(run)["identity"] == identity(frozen)


def test_another_seed_gives_other_weights(tiny_run: RunDirectory, tmp_path: Path) -> None:
    other = weights(train_here(tmp_path / "other", *TINY, "seed=1", "trainer.max_epochs=1"))
    assert not any(torch.equal(value, other[name]) for name, value in weights(tiny_run).items())


def test_without_validation_the_last_checkpoint_is_tested(tmp_path: Path) -> None:
    run = train_here(tmp_path / "run", *TINY, "data.val_size=0", "trainer.max_epochs=1")
    result = read_result(run)
    assert not run.best.exists()
    assert result["objective"] is None
    assert result["best"] == {} == result["last"]
    assert 0 <= result["test"]["test/accuracy"] <= 1


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Train on two ranks, with a last batch in each split that doesn't divide by two."""
    run = RunDirectory(tmp_path_factory.mktemp("two") / "run")
    ranks = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    done = call_litlab(run.path.parent, "train", *UNEVEN, *ranks, f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert json.loads(run.provenance.read_text())["machine"]["ranks"] == 2
    return run


def test_two_processes_train_as_one(two_ranks: RunDirectory, tmp_path: Path) -> None:
    """Equal global batches give equal rows and weights, up to the order in which floats are added."""
    one = train_here(tmp_path / "one", *UNEVEN)
    single, double = weights(one), weights(two_ranks)
    for name in single:
        torch.testing.assert_close(single[name], double[name], rtol=1e-4, atol=1e-5)
    values = [{(r.metric, r.step): r.value for r in read_metrics(run.metrics)} for run in (one, two_ranks)]
    assert values[0].keys() == values[1].keys()
    for key in values[0]:
        if key[0] != "throughput/images_per_second":
            assert values[1][key] == pytest.approx(values[0][key], rel=1e-4, abs=1e-5), key


def test_two_processes_measure_as_one_for_the_same_weights(two_ranks: RunDirectory) -> None:
    """211 test images on two ranks count as 211: counts are equal, floats within 1e-6."""
    finished = FinishedRun.open(two_ranks.path)
    config = finished.select_settings("seed", "data", "model", "task", "optimizer", "schedule", "trainer")
    here = evaluate(finished, config, two_ranks.best, split="test", device="cpu")["metrics"]
    there = read_result(two_ranks)["test"]
    assert here.keys() == there.keys()
    for name in ("test/accuracy", "test/top5_accuracy"):
        assert here[name] == there[name]
        assert there[name] * 211 == pytest.approx(round(there[name] * 211), abs=2e-4)
    for name in ("test/loss", "test/calibration_error"):
        assert there[name] == pytest.approx(here[name], abs=1e-6)


def test_two_processes_write_one_session(two_ranks: RunDirectory) -> None:
    (shown,) = sessions(two_ranks.path.parent).values()
    assert (shown.status, shown.settings["seed"]) == ("STATUS_SUCCESS", 0)
    result = read_result(two_ranks)
    assert shown.metrics["result/test/accuracy"] == result["test"]["test/accuracy"]
    assert len(list(two_ranks.path.glob("events.*"))) == 3, "what it appended to, its start and its end"


DYING = """
import os, signal, torch

class Net(torch.nn.Module):
    def __init__(self, *, num_classes):
        super().__init__()
        self.layer = torch.nn.Linear(3072, num_classes)

    def forward(self, images):
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layer(images.flatten(1))
"""


def test_a_dead_rank_takes_the_group_down(tmp_path: Path, litlab: Command) -> None:
    (tmp_path / "project" / "dying.py").write_text(DYING)
    settings = [override for override in TINY if not override.startswith("model.")]
    model = ("model._target_=dying.Net", "~model.widths", "~model.hidden")
    done = litlab("train", *settings, *model, "trainer.devices=2", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 137, done.stderr
    assert "Traceback" not in done.stderr
    assert read_result(RunDirectory(tmp_path / "run"))["status"] == "failed"
    assert {row.status for row in sessions(tmp_path).values()} == {"STATUS_FAILURE"}
    assert processes_in(tmp_path / "project") == []


def test_seconds_and_speed_are_recorded(tiny_run: RunDirectory) -> None:
    result = read_result(tiny_run)
    phases = {"import", "data_and_network", "trainer", "fit", "test"}
    assert result["seconds"].keys() == phases | {"training", "saving"}
    assert 0 < result["seconds"]["training"] <= result["seconds"]["fit"]
    assert result["images_per_second"] == pytest.approx(320 / result["seconds"]["training"], rel=0.05)


def test_an_objective_in_the_wrong_direction_is_refused(tmp_path: Path) -> None:
    metric = "+task.metrics.miss={_target_: torchmetrics.HammingDistance, task: multiclass}"
    run, config = new_run(tmp_path / "run", *TINY, metric, "objective={metric: val/miss, mode: max}")
    with pytest.raises(UserError, match=r"objective\.mode=max: lower values of val/miss are better; set it to min"):
        train_until(run, config, None)


@pytest.mark.filterwarnings("ignore:You passed `Trainer.accelerator='cpu', precision='16-mixed'.`")
def test_16_mixed_is_refused_on_a_cpu(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *TINY, "trainer.precision=16-mixed")
    with pytest.raises(UserError, match=r"trainer\.precision=16-mixed needs a GPU; on a CPU use bf16-mixed"):
        train_until(run, config, None)
    assert not run.metrics.exists()


def test_validations_farther_apart_than_an_epoch_are_refused(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *TINY, "trainer.val_check_interval=11")
    with pytest.raises(UserError, match=r"=11: an epoch has 10 batches.*check_val_every_n_epoch=null"):
        train_until(run, config, None)
    assert not run.metrics.exists(), "it counts as refused"
    config["trainer"]["check_val_every_n_epoch"] = None
    assert train_until(run, config, None)
    assert [row.step for row in read_metrics(run.metrics) if row.metric == "val/loss"] == [11]


def test_an_automatic_precision_is_kept_on_another_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluation uses it, too."""
    for has_bfloat16, number in ((True, 3), (False, None)):
        monkeypatch.setattr(build, "multiplies_bfloat16", lambda has=has_bfloat16: has)
        if number:
            run, config = new_run(tmp_path / "run", *TINY, "trainer.precision=auto")
        assert (train_until(run, config, number) is None) == (number is not None)
        assert run.read_json(run.provenance)["machine"]["precision"] == "bf16-mixed"
    result = read_result(run)
    assert (result["precision"], result["device"]) == ("bf16-mixed", processor_name())
    finished = FinishedRun.open(run.path)
    config = finished.select_settings("seed", "data", "model", "task", "optimizer", "schedule", "trainer")
    assert evaluate(finished, config, run.best, split="test", device="cpu")["metrics"] == result["test"]
