"""The controller with a worker that starts cold, as it does outside of these tests."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.runs import TINY, call_cold, compose_config

from litlab.config.config_file import to_yaml
from litlab.errors import RunFailed
from litlab.process.controller import run_worker
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
