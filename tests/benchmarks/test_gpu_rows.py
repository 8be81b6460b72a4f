"""The rows of a GPU, without one: a resume counted value by value, jobs on one device, a step that is replayed."""

import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from support.runs import TINY, compose_config
from support.warm import WarmProcess

from benchmarks import gpu, gpu_graphs, gpu_multirun, gpu_resume, settings
from benchmarks.bare import RECORD, BareLoop
from benchmarks.training import BY_HAND
from litlab.data.module import ImageDataModule
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Row as MetricRow
from litlab.training.build import Facts, build_data, build_network

QUICK = settings.quick()


# ---- resume


def test_weights_that_differ_are_counted() -> None:
    left = {"a": torch.tensor([1.0, torch.nan, 0.0]), "b": torch.tensor([1, 2])}
    right = {"a": torch.tensor([1.0, torch.nan, torch.nan]), "b": torch.tensor([1, 3])}
    assert gpu_resume.differing_weights(left, left) == (0, 5)
    assert gpu_resume.differing_weights(left, right) == (2, 5)


def test_logged_values_that_differ_are_counted_without_the_throughput() -> None:
    left = [MetricRow(0, 1, "train/loss", 0.5), MetricRow(0, 1, "throughput/images_per_second", 3.0)]
    right = [MetricRow(0, 1, "train/loss", 0.5 + 2**-53), MetricRow(0, 2, "train/loss", torch.nan)]
    assert gpu_resume.differing_values(left, left) == (0, 1)
    assert gpu_resume.differing_values(left, right) == (2, 2)


@pytest.mark.integrations
def test_a_run_that_stops_itself_is_resumed_and_compared() -> None:
    checkout = Path(gpu_resume.__file__).parents[1]

    def work(run: RunDirectory) -> int:
        environment = os.environ | {"PYTHONPATH": str(checkout)}
        return WarmProcess(["litlab.training.worker", str(run.path)], checkout, environment=environment).wait()

    overrides = (*TINY, "data.num_train=1040", "trainer.max_epochs=1")
    rows = gpu_resume.scenario_rows("32-true", overrides, work=work)

    assert [row.name for row in rows] == [
        "GPU: resume, 32-true: weights that differ",
        "GPU: resume, 32-true: logged values that differ",
    ]
    assert [row.ours for row in rows] == [(0.0,), (0.0,)]
    assert min(row.theirs[0] for row in rows) > 10


def test_the_runs_to_resume_compose_and_stop_within_their_second_epoch() -> None:
    for overrides in gpu_resume.SCENARIOS.values():
        config = compose_config(*gpu_resume.COMMON, *overrides, *gpu_resume.stop(gpu_resume.STOP_AT))
        assert config["callbacks"]["stop"]["at_step"] == gpu_resume.STOP_AT
    num_epochs = config["trainer"]["max_epochs"]
    assert gpu_resume.STEPS_PER_EPOCH < gpu_resume.STOP_AT < num_epochs * gpu_resume.STEPS_PER_EPOCH


# ---- several jobs on a device


def test_jobs_share_the_device_and_the_images_of_all_are_counted() -> None:
    ticks = iter((0.0, 8.0, 10.0, 14.0, 20.0, 22.0, 30.0, 32.0))
    calls: list[tuple[str, int, tuple[str, ...]]] = []

    def train_jobs(study: Path, num_jobs: int, *overrides: str) -> None:
        calls.append((study.name, num_jobs, overrides))

    rows = gpu_multirun.rows(QUICK, train_jobs=train_jobs, clock=lambda: next(ticks))

    assert [row.name.split("jobs_per_device=")[1] for row in rows] == ["1", "2", "4", "8"]
    assert [row.ours for row in rows] == [(80.0,), (160.0,), (320.0,), (320.0,)]  # 8 jobs, 20 steps, batches of 4
    assert [row.ratios for row in rows] == [(), (2.0,), (4.0,), (4.0,)]
    assert [call[:2] for call in calls] == [(f"jobs_per_device_{number}", 8) for number in (1, 2, 4, 8)]
    *kept, seeds, launcher = calls[-1][2]
    assert (seeds, launcher) == ("seed=0,1,2,3,4,5,6,7", "hydra.launcher.jobs_per_device=8")
    trainer = compose_config(*kept)["trainer"]
    assert (trainer["max_steps"], trainer["accelerator"]) == (20, "gpu")


# ---- a step as a graph


def network_and_data(*overrides: str) -> tuple[torch.nn.Module, ImageDataModule, dict[str, object]]:
    config = compose_config(*gpu_graphs.overrides(QUICK, 4), "trainer=cpu", *overrides)
    data = build_data(config)
    assert isinstance(data, ImageDataModule)
    return build_network(config["model"], Facts(data.info)), data, config


def test_a_replayed_step_is_the_step_of_the_loop_by_hand() -> None:
    """In place of a graph, the step itself is called again, after steps that a capture makes as well."""
    network, data, config = network_and_data()
    num_replays = 0

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            nonlocal num_replays
            num_replays += 1
            step()

        for _ in range(3):
            step()
        return replay

    by_hand = BareLoop(deepcopy(network), data, config)
    replayed = gpu_graphs.GraphLoop(deepcopy(network), data, config, capture=capture)
    for epoch in range(2):
        by_hand.train(epoch), replayed.train(epoch)

    assert num_replays == 2 * len(by_hand.loader) == 20
    expected = by_hand.network.state_dict()
    for name, weights in replayed.network.state_dict().items():
        assert torch.equal(weights, expected[name])
        assert not torch.equal(weights, network.state_dict()[name])


def test_both_loops_are_measured_for_each_batch_size(tmp_path: Path) -> None:
    trained: list[tuple[str, ...]] = []

    def train(directory: Path, *overrides: str) -> RunDirectory:
        trained.append(overrides)
        directory.mkdir()
        run = RunDirectory(directory)
        record = {"litlab": [9.0, 2.0, 2.0], "bare": [9.0, 1.0, 1.0], "num_steps": 1, "num_images": 4}
        (directory / RECORD).write_text(json.dumps(record))
        return run

    rows = gpu_graphs.rows(QUICK, train=train)

    assert [(row.name, row.against) for row in rows] == [
        (f"GPU: tutorial CNN, batch {batch_size}", against)
        for batch_size in (4, 128)
        for against in (BY_HAND, gpu_graphs.GRAPH)
    ]
    assert [row.ratios for row in rows] == [(0.5, 0.5)] * 4
    for overrides in trained:
        config = compose_config(*overrides)
        num_train = config["data"]["num_train"] - config["data"]["val_size"]
        assert num_train % config["data"]["batch_size"] == 0


# ---- compile under DDP


def test_the_last_switch_is_compile_under_ddp() -> None:
    name, overrides = list(gpu.SWITCHES.items())[-1]
    config = compose_config("trainer=gpu", "model=resnet18", *overrides)
    assert name.endswith("compile, DDP")
    assert (config["task"]["compile"], config["trainer"]["strategy"], config["trainer"]["devices"]) == (True, "ddp", 1)
