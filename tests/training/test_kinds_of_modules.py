"""Kinds of LightningModules that do not import litlab: exact resume, two ranks, seeds, and the names that they log."""

import csv
import json
import signal
from pathlib import Path

import pytest
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign_tasks import KINDS, overrides
from support.runs import Command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from litlab.cli import compare
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import is_validation, read_metrics
from litlab.runs.result import read_result
from litlab.training.build import assemble

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:The number of training batches",
    "ignore:No negative samples in targets",
)


@pytest.mark.integrations
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_is_stopped_anywhere_ends_as_an_uninterrupted_one(kind: str, tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "whole", *overrides(kind))
    num_looks = train_until(run, config, None)
    assert num_looks
    expected = outcome(run)
    assert expected["result"]["objective"] is not None
    for number in (3, 7, num_looks // 2 + 2):  # in the first epoch, its validation, the second epoch
        resumed = stop_and_resume(tmp_path / f"stopped at look {number}", number, *overrides(kind))
        assert not differences(expected, outcome(resumed)), f"stopped at look {number}"


@pytest.mark.parametrize(
    ("argument", "default"), [("gradient_clip_val=0.5", "null"), ("accumulate_grad_batches=2", "1")]
)
def test_what_lightning_leaves_to_manual_optimization_is_refused(argument: str, default: str, tmp_path: Path) -> None:
    _, config = new_run(tmp_path / "run", *overrides("gan"), f"trainer.{argument}")
    expected = (
        f"trainer.{argument}: GAN has automatic_optimization=False, .*; set trainer.{argument.split('=')[0]}={default}"
    )
    with pytest.raises(UserError, match=expected):
        assemble(config, rank=0)


@pytest.mark.integrations
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_survive_a_kill_and_two_seeds_are_compared(
    kind: str, tmp_path: Path, litlab: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "killed"
    kill = f"+callbacks.kill={{_target_: support.foreign_tasks.KillOnce, marker: {marker}, step: 5}}"
    ranks = ("trainer.devices=2", "trainer.strategy=ddp_find_unused_parameters_true")
    command = (*overrides(kind), *ranks, "checkpoint.every_steps=1", kill)
    marker.touch()  # the runs of the study are not killed
    study = tmp_path / "study"
    done = litlab("train", "-m", *command, "seed=0,1", f"hydra.sweep.dir={study}")
    assert done.returncode == 0, done.stderr
    first, second = (RunDirectory(study / f"000{seed}_seed-{seed}") for seed in (0, 1))
    assert read_result(first)["weights"] != read_result(second)["weights"]

    marker.unlink()
    run = RunDirectory(tmp_path / "run")
    assert litlab("train", *command, f"hydra.run.dir={run.path}").returncode == 128 + signal.SIGKILL
    assert read_result(run)["status"] == "failed", "it was killed"
    done = litlab("resume", str(run.path))
    assert done.returncode == 0, done.stderr
    assert not differences(outcome(first), outcome(run))

    if tested := read_result(run)["test"]:
        done = litlab("evaluate", str(run.path), "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["metrics"] == pytest.approx(tested, rel=1e-5)

    metric = KINDS[kind][2][0]
    assert compare.main([str(study), "--format", "csv"]) in (0, None)
    (row,) = csv.DictReader(capsys.readouterr().out.splitlines())
    values = [read_result(each)["best"][metric] for each in (first, second)]
    assert (row[f"{metric} num"], float(row[f"{metric} mean"])) == ("2", pytest.approx(sum(values) / 2))


@pytest.mark.parametrize(
    ("kind", "validated", "trained", "tested"),
    [
        (
            "tutorial",
            ["val_acc", "val_loss"],
            ["train_acc", "train_loss", "train_loss_step"],
            ["test_acc", "test_loss"],
        ),
        ("gan", ["distance"], ["train/d_loss", "train/g_loss"], []),
        ("template", ["val/acc", "val/acc_best", "val/loss"], ["train/acc", "train/loss"], ["test/acc", "test/loss"]),
        ("contrastive", ["loss"], ["train/loss", "train/loss_step"], []),
    ],
)
def test_a_metric_has_one_name_in_each_split_that_comes_from_the_loop(
    kind: str, validated: list[str], trained: list[str], tested: list[str], tmp_path: Path
) -> None:
    run, config = new_run(tmp_path / "run", *overrides(kind))
    assert train_until(run, config, None)
    result, rows = read_result(run), read_metrics(run.metrics)
    assert sorted(result["best"]) == sorted(result["last"]) == validated
    assert sorted(result["test"]) == tested
    of_batches = {f"{name}_step" for name in ("val_loss", "test_loss", "loss")}
    assert sorted({row.metric for row in rows} - {"lr"} - of_batches) == sorted([*validated, *trained, *tested])
    for name in validated:
        steps = [row.step for row in rows if row.metric == name]
        assert len(steps) == len(set(steps)) == 2, "one value for each validation"
    metric, mode = KINDS[kind][2]
    values = [row.value for row in rows if row.metric == metric]
    assert is_validation(metric)
    assert result["objective"] == (max if mode == "max" else min)(values)


def test_the_objective_may_be_called_as_lightning_calls_the_value_of_an_epoch(tmp_path: Path) -> None:
    plain, named = (
        new_run(tmp_path / metric, *overrides("tutorial"), f"objective.metric={metric}")
        for metric in ("val_loss", "val_loss_epoch")
    )
    for run, config in (plain, named):
        assert train_until(run, config, None)
    results = [read_result(run) for run, _ in (plain, named)]
    assert results[0]["objective"] == results[1]["objective"] == results[1]["best"]["val_loss_epoch"]
    assert sorted(results[1]["last"]) == ["val_acc", "val_loss_epoch"]
    assert sorted(results[1]["test"]) == ["test_acc", "test_loss_epoch"]
    assert {"val_loss_epoch", "test_loss_epoch"} <= {row.metric for row in read_metrics(named[0].metrics)}


def test_self_logger_is_the_first_logger_of_the_config(tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *overrides("gan"))
    assert train_until(run, config, None)
    events = EventAccumulator(str(run.path))
    events.Reload()
    assert [event.step for event in events.Images("samples")] == [0, 1]
    without, config = new_run(tmp_path / "without", *overrides("gan"), "~logger")
    assert train_until(without, config, None), "the calls of its logger do nothing"
    assert read_result(without)["weights"] == read_result(run)["weights"]
