"""Workers on a prepared run directory, under torchrun and on several machines."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO
from unittest.mock import Mock

import pytest
from support.pool_jobs import new_job, trained_here
from support.processes import PATIENCE, wait_until
from support.runs import TINY, call_litlab, compose_config
from support.warm import WarmProcess, run_warm

from litlab.config.config_file import to_yaml
from litlab.config.machine_facts import open_keys
from litlab.process.ranks import reserve_port, store_environment
from litlab.process.signals import PARENT_VARIABLE, STOP_SIGNALS
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.lock import directory_lock
from litlab.runs.processor import num_cores
from litlab.runs.result import Result, read_result, write_result
from litlab.runs.state import RunStatus
from litlab.training.worker import _report_failure, main


@pytest.mark.integrations
def test_torchrun(tmp_path: Path) -> None:
    """Rank 0 owns the directory and removes an older result."""
    config = compose_config(*TINY, "trainer.max_epochs=1", "trainer.devices=2")
    run = RunDirectory.create(tmp_path / "run", to_yaml(config), {})
    write_result(run, Result(status=RunStatus.FAILED, identity="older", error="a machine failed"))
    command = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", WORKER, str(run.path)]
    done = run_warm(command, tmp_path, timeout=200)
    assert done.returncode == 0, done.stderr
    result = read_result(run)
    assert (result["status"], result["epochs"], result["steps"]) == ("completed", 1, 10)
    assert run.read_json(run.provenance)["machine"]["ranks"] == 2
    assert (run.path / ".lock").exists()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunDirectory]:
    """Prepare a directory for a worker in this process, and restore what the worker changes here."""
    run = RunDirectory.create(tmp_path / "run", to_yaml(compose_config(*TINY, "trainer.num_nodes=2")), {})
    monkeypatch.setattr(sys, "argv", ["litlab.training.worker", str(run.path)])
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv(PARENT_VARIABLE, raising=False)
    before = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    yield run
    for signum, handler in before.items():
        signal.signal(signum, handler)
    gc.unfreeze()


def test_rank_0_starts_only_in_a_directory_that_is_free(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with directory_lock(run.path):
        assert main() == 75
    assert "is in use by process" in capsys.readouterr().err
    assert not run.result.exists()


def test_several_machines_are_left_to_torchrun(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    """torchrun needs the directory, so the run is not refused."""
    assert main() == 1
    assert (
        f"start `-m litlab.training.worker {run.path}` with torchrun or srun on every machine"
        in capsys.readouterr().err
    )
    assert read_result(run)["status"] == "failed"


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(("ranks", "nodes"), [(1, 2), (2, 1), (2, 2)])
def test_another_number_of_ranks_is_refused(
    rank: int,
    ranks: int,
    nodes: int,
    run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The config asks for one device on each of two machines; only the last combination with one rank would train."""
    trains = Mock(side_effect=AssertionError("it trains"))
    monkeypatch.setattr("litlab.training.run.train", trains)
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks * nodes, "LOCAL_WORLD_SIZE": ranks}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    assert main() == 1
    error = capsys.readouterr().err
    if (ranks, nodes) == (1, 2):
        assert trains.called
        return
    assert not trains.called
    assert read_result(run)["status"] == "refused"
    message = (
        f"trainer.devices=1 trainer.num_nodes=2, but {ranks} ranks were started on each of {nodes} machines: start as "
        f"many as the config says, or change it by `litlab resume {run.path} trainer.devices={ranks} "
        f"trainer.num_nodes={nodes}`"
    )
    assert error == (f"litlab: {message}\n" if rank == 0 else "")


def test_a_run_that_was_completed_before_the_lock_is_left_alone(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def complete_first(directory: Path) -> AbstractContextManager[TextIO]:
        write_result(run, Result(status=RunStatus.COMPLETED, identity=""))
        return directory_lock(directory)

    monkeypatch.setattr("litlab.training.worker.directory_lock", complete_first)
    assert main() == 0
    assert capsys.readouterr().err == f"litlab: {run.path} is complete\n"
    assert read_result(run)["status"] == "completed"


def test_a_rank_that_is_killed_after_the_end_leaves_the_result(run: RunDirectory) -> None:
    write_result(run, Result(status=RunStatus.COMPLETED, identity=""))
    assert _report_failure(run, run.read_config(), 128 + signal.SIGKILL) == 128 + signal.SIGKILL
    assert read_result(run)["status"] == "completed"


WORKER = "litlab.training.worker"
OPEN = (*TINY, "trainer.accelerator=auto", "trainer.devices=auto", "threads=null", "trainer.max_epochs=4")


def new_run(folder: Path, **changes: Any) -> RunDirectory:
    """Prepare a run that leaves open what it takes of the machine, and takes seconds to train."""
    config = compose_config(*OPEN)
    config["callbacks"]["sabotage"] = {"_target_": "support.sabotage.Sabotage", "how": "sleep"}
    return new_job(folder, 0, config | changes).run


def start(run: RunDirectory, *launcher: str, **environment: str) -> WarmProcess:
    """Start a worker, or a module that runs it."""
    variables = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | environment
    return WarmProcess([*launcher, WORKER, str(run.path)], run.path.parent, environment=variables, block_signals=True)


def stop_when_begun(run: RunDirectory, *processes: WarmProcess) -> None:
    """Wait until there is something to save, then stop."""
    wait_until(lambda: run.metrics.exists() or any(process.poll() is not None for process in processes))
    processes[0].send_signal(signal.SIGTERM)
    assert [process.wait(PATIENCE) for process in processes] == [128 + signal.SIGTERM] * len(processes)
    assert read_result(run)["status"] == "interrupted"


def decisions(run: RunDirectory) -> list[Any]:
    machine = run.read_json(run.provenance)["machine"]
    return [machine[key] for key in ("accelerator", "devices", "ranks", "threads")]


@pytest.mark.integrations
@pytest.mark.skipif(num_cores() < 2, reason="needs cores that the first start has not")
def test_a_run_keeps_the_threads_of_its_first_start(tmp_path: Path) -> None:
    """It begins on one core and continues on all: with the bits of one thread, unless an override asks for more."""
    run = new_run(tmp_path)
    stop_when_begun(run, start(run, "support.one_core"))
    assert decisions(run) == ["cpu", 1, 1, 1]
    copy = RunDirectory(tmp_path / "copy")
    shutil.copytree(run.path, copy.path)
    assert start(run).wait(PATIENCE) == 0
    assert decisions(run) == ["cpu", 1, 1, 1]
    assert run.read_config()["threads"] is None
    frozen = new_run(tmp_path / "frozen", threads=1)
    assert read_result(trained_here(tmp_path / "here", frozen.read_config()))["weights"] == read_result(run)["weights"]
    done = call_litlab(tmp_path, "resume", str(copy.path), "threads=null")
    assert done.returncode == 0, done.stderr
    assert decisions(copy) == ["cpu", 1, 1, num_cores()]
    assert copy.read_json(copy.provenance)["machine"]["automatic"] == open_keys(copy.read_config())


@pytest.mark.integrations
def test_a_run_keeps_the_ranks_of_its_first_start(tmp_path: Path) -> None:
    """It begins with two ranks as torchrun starts them, and continues with two of the worker."""
    run = new_run(tmp_path)
    with reserve_port() as reserved:
        common = store_environment(reserved) | {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    stop_when_begun(run, *(start(run, **common, RANK=rank, LOCAL_RANK=rank) for rank in "01"))
    assert decisions(run) == ["cpu", 2, 2, max(1, num_cores() // 2)]
    assert start(run).wait(PATIENCE) == 0
    assert decisions(run) == ["cpu", 2, 2, max(1, num_cores() // 2)]


def begun_with(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, **machine: Any) -> RunDirectory:
    """Prepare a run whose first start decided this, and make it the one of `main`."""
    begun = new_run(run.path.parent / "begun")
    keys = ["trainer.accelerator", "trainer.devices", "threads"]
    write_json(begun.provenance, begun.read_json(begun.provenance) | {"machine": machine | {"automatic": keys}})
    monkeypatch.setattr(sys, "argv", ["litlab.training.worker", str(begun.path)])
    monkeypatch.setattr("litlab.training.run.train", Mock(side_effect=AssertionError("it trains")))
    return begun


@pytest.mark.parametrize(
    ("available", "found", "override"),
    [(0, "no GPU", "trainer.accelerator=cpu trainer.devices=1"), (1, "1 GPU", "trainer.devices=1")],
)
def test_a_run_that_began_on_more_gpus_is_refused(
    available: int,
    found: str,
    override: str,
    run: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    begun = begun_with(run, monkeypatch, accelerator="cuda", devices=2, threads=1)
    monkeypatch.setattr("litlab.training.worker._count_gpus", lambda: available)
    assert main() == 1
    assert capsys.readouterr().err == (
        f"litlab: the run began on 2 GPUs, but this machine has {found}: continue it where there are as many, or "
        f"change it by `litlab resume {begun.path} {override}`\n"
    )


def test_ranks_of_torchrun_that_the_run_did_not_begin_with_are_refused(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = begun_with(run, monkeypatch, accelerator="cpu", devices=2, threads=1)
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 3, "LOCAL_WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    assert main() == 1
    assert capsys.readouterr().err == (
        "litlab: trainer.devices=2 trainer.num_nodes=1, but 3 ranks were started on each of 1 machines: start as many "
        f"as the run began with, or change it by `litlab resume {begun.path} trainer.devices=3 trainer.num_nodes=1`\n"
    )


STOPPED_IN = """
import os, signal, sys
from litlab.training.worker import main

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "numpy.dtypes":
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Finder())
sys.exit(main())
"""


def test_a_signal_within_an_import(tmp_path: Path) -> None:
    """numpy cannot be imported twice, and TensorBoard's part of the result needs it."""
    run = RunDirectory.create(tmp_path / "run", to_yaml(compose_config(*TINY)), {})
    done = subprocess.run(
        [sys.executable, "-c", STOPPED_IN, str(run.path)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 143, done.stderr
    assert read_result(run)["error"] == "stopped by SIGTERM"
    assert "Traceback" not in done.stderr
