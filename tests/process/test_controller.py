"""The controller with a worker that starts cold, as it does outside of these tests."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from support.processes import PATIENCE, is_alive
from support.runs import TINY, call_cold, compose_config

from litlab.config.config_file import to_yaml
from litlab.errors import RunFailed
from litlab.process.controller import EarlyWorker, run_worker
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.result import read_result


@pytest.mark.integrations
def test_resume_starts_a_new_interpreter(tiny_run: RunDirectory, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    shutil.copytree(tiny_run.path, run.path)
    run.result.unlink()
    done = call_cold(tmp_path, "resume", str(run.path))
    assert done.returncode == 0, done.stderr
    assert read_result(run)["weights"] == read_result(tiny_run)["weights"]


@pytest.fixture
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the number of cores: on a single one, no worker is started early."""
    monkeypatch.setattr("litlab.process.controller.num_cores", lambda: 2)


def early_pid(early: EarlyWorker) -> int:
    assert early._process is not None
    return early._process.pid


@pytest.mark.integrations
@pytest.mark.usefixtures("two_cores")
def test_an_early_worker_trains_to_the_same_bits(tiny_run: RunDirectory, tmp_path: Path) -> None:
    config = tiny_run.read_config()
    with EarlyWorker(config) as early:
        pid = early_pid(early)
        run = RunDirectory.create(tmp_path / "run", to_yaml(config), {})
        objective = run_worker(run, config, keep=False, early=early)
        assert early._process is None
    result, expected = read_result(run), read_result(tiny_run)
    assert (result["weights"], result["test"], objective) == (
        expected["weights"],
        expected["test"],
        expected["objective"],
    )
    assert run.read_json(run.provenance)["machine"]["threads"] == config["threads"]
    assert not is_alive(pid)


@pytest.mark.usefixtures("two_cores")
def test_the_environment_of_an_early_worker_is_that_of_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("RANK", "1")
    with EarlyWorker(compose_config(*TINY, "threads=3")) as early:
        environment = psutil.Process(early_pid(early)).environ()
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("3", "3")
    assert environment["LITLAB_PARENT"] == str(os.getpid())
    assert "RANK" not in environment


@pytest.mark.usefixtures("two_cores")
def test_an_early_worker_is_replaced_if_the_variables_change(
    tiny_run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they do where no key can be kept: then a variable has it."""
    with EarlyWorker(tiny_run.read_config()) as early:
        pid = early_pid(early)
        monkeypatch.setenv("LITLAB_SESSION_KEY", "0" * 64)
        assert early.hand_over(tiny_run) is None
        assert not psutil.pid_exists(pid)


@pytest.mark.usefixtures("two_cores")
def test_an_early_worker_that_was_killed_is_replaced(tiny_run: RunDirectory) -> None:
    with EarlyWorker(tiny_run.read_config()) as early:
        psutil.Process(early_pid(early)).kill()
        psutil.Process(early_pid(early)).wait()
        assert early.hand_over(tiny_run) is None


@pytest.mark.usefixtures("two_cores")
def test_an_early_worker_ends_with_its_command(capfd: pytest.CaptureFixture[str]) -> None:
    """By Ctrl-C, or however else: then the system closes the pipe."""
    config = compose_config(*TINY)
    pids = []

    def interrupt(early: EarlyWorker) -> None:
        with early:
            pids.append(early_pid(early))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupt(EarlyWorker(config))
    assert [psutil.pid_exists(pid) for pid in pids] == [False]
    with EarlyWorker(config) as early:
        os.dup2(os.open(os.devnull, os.O_WRONLY), early._writer)
        assert psutil.Process(early_pid(early)).wait(PATIENCE) == 0
    assert capfd.readouterr() == ("", "")


def test_no_worker_is_started_early_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several devices train in processes of their own; a single core imports no sooner."""
    for cores, devices in ((2, 2), (2, "auto"), (1, 1)):
        monkeypatch.setattr("litlab.process.controller.num_cores", lambda cores=cores: cores)
        with EarlyWorker(compose_config(*TINY, f"trainer.devices={devices}")) as early:
            assert early._process is None


def test_outside_the_main_thread_a_worker_is_only_a_process(tmp_path: Path) -> None:
    """Python lets no other thread handle signals; a launcher may call a job in one. And a failure before the start."""
    config = compose_config(*TINY)
    run = RunDirectory.create(tmp_path / "run", to_yaml(config | {"format": 1}), {})
    with ThreadPoolExecutor() as pool:
        error = pool.submit(run_worker, run, config, keep=False).exception()
    assert isinstance(error, RunFailed)
    assert error.exit_code == 1
    assert read_result(run)["status"] == "failed"


def test_a_run_in_use_is_left_to_its_owner(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = compose_config(*TINY)
    run = RunDirectory.create(tmp_path / "run", to_yaml(config), {})
    with directory_lock(run.path), pytest.raises(RunFailed) as failed:
        run_worker(run, config, keep=False)
    assert failed.value.exit_code == 75
    assert not run.result.exists()
    assert len(capfd.readouterr().err.splitlines()) == 1
