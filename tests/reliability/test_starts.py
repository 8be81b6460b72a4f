"""Runs that start anew: equal when their configs are, in directories of their own, at little cost for safety."""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from reliability.report import Tally, in_torture, times
from reliability.runs import SMALL, Reference, small_run
from reliability.workers import TIMEOUT, Workers, kill_sessions, variables
from support.runs import call_litlab

from litlab.config.config_file import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

MOST = 0.02  # of the seconds of training, for saving


@pytest.mark.row("new runs of one frozen config: equal hashes of the weights")
def test_fresh_runs_are_equal(tally: Tally, workers: Workers, tmp_path: Path) -> None:
    """Forked workers; in torture, two new processes among them."""
    hashes = []
    for number in range(times(2, 10)):
        run = small_run(tmp_path / str(number), *SMALL)
        worker = workers.start(run) if number in range(2, 4) else workers.fork(run)
        assert worker.wait() == 0, worker.stderr()
        hashes.append(read_result(run)["weights"])
    tally.count(hashes.count(hashes[0]), len(hashes))
    assert len(set(hashes)) == 1


@pytest.mark.row("simultaneous starts of `litlab train`: separate directories")
def test_simultaneous_starts(tally: Tally, tmp_path: Path) -> None:
    """Each gets a SIGTERM as soon as it has its directory, with the config in it."""
    overrides = [setting for setting in SMALL if "reliability" not in setting and not setting.startswith("~model")]
    command = [sys.executable, "-P", "-m", "litlab", "train", *overrides]
    number = times(2, 50)
    null = subprocess.DEVNULL
    options: dict[str, Any] = {"stdout": null, "stderr": null, "start_new_session": True}
    processes = [
        subprocess.Popen([*command, f"seed={seed}"], cwd=tmp_path, env=variables(), **options) for seed in range(number)
    ]
    try:
        seeds = terminate_when_frozen(processes, tmp_path / "outputs")
        codes = [process.wait(TIMEOUT) for process in processes]
    finally:
        kill_sessions(process.pid for process in processes)
    tally.count(len(seeds), number)
    assert sorted(seeds.values()) == list(range(number))
    assert {128 - code if code < 0 else code for code in codes} == {143}  # as in a shell
    assert len(list((tmp_path / "outputs").glob("*/*"))) == number


def terminate_when_frozen(processes: "list[subprocess.Popen[bytes]]", outputs: Path) -> dict[Path, int]:
    """Return the seed in each frozen config, which is the number of its process."""
    seeds: dict[Path, int] = {}
    end = time.monotonic() + 5 * TIMEOUT
    while len(seeds) < len(processes) and time.monotonic() < end:
        for config in set(outputs.glob("*/*/config.yaml")) - seeds.keys():
            seeds[config] = from_yaml(config.read_text(encoding="utf-8"))["seed"]
            processes[seeds[config]].terminate()
        time.sleep(0.05)
    return seeds


@in_torture
@pytest.mark.row("SIGTERM to `litlab train`, then `litlab resume`: identical result")
def test_the_commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    runs = [RunDirectory(tmp_path / name) for name in ("whole", "run")]
    train = [["train", *SMALL, f"hydra.run.dir={run.path}"] for run in runs]
    (tmp_path / "reliability").symlink_to(Path(__file__).parent)
    (tmp_path / "support").symlink_to(Path(__file__).parents[1] / "support")
    completed = call_litlab(tmp_path, *train[0])
    assert completed.returncode == 0, completed.stderr
    with monkeypatch.context() as patch:
        patch.setenv("LITLAB_TEST_SIGNAL", f"train_batch 4 {signal.SIGTERM:d}")
        stopped = call_litlab(tmp_path, *train[1])
    assert stopped.returncode == 143, stopped.stderr
    resumed = call_litlab(tmp_path, "resume", str(runs[1].path))
    assert resumed.returncode == 0, resumed.stderr
    Reference.of(runs[0]).assert_equal(runs[1])


@in_torture
@pytest.mark.row("time for saving at the default interval in `experiment=quickstart`: under 2 %")
def test_the_time_of_saving(tally: Tally, tmp_path: Path) -> None:
    completed = call_litlab(tmp_path, "train", "experiment=quickstart", f"hydra.run.dir={tmp_path / 'run'}")
    assert completed.returncode == 0, completed.stderr
    seconds = read_result(RunDirectory(tmp_path / "run"))["seconds"]
    share = seconds["saving"] / seconds["training"]
    tally.count(int(share < MOST), 1, f"{100 * share:.2f} %: {seconds['saving']:.3f} of {seconds['training']:.1f} s")
    assert share < MOST
