"""A server that cannot start, and what a single run says where a job of the pool is classified: in words."""

from pathlib import Path

import pytest
from sweep.pool_jobs import new_job, quick_config

from litlab.controller import run_worker
from litlab.errors import RunFailed, UserError
from litlab.runs.result import read_result
from litlab.sweep.local.pool import LocalPool, PoolSettings


def test_a_user_who_exits_with_zero_has_no_result(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    job = new_job(tmp_path, 1, quick_config(how="sys.exit"))
    with pytest.raises(RunFailed) as failed:
        run_worker(job.run, job.config, keep=True)
    assert failed.value.exit_code == 1
    assert read_result(job.run)["error"] == "the worker ended with exit code 0 and no result: something called exit()"
    assert capfd.readouterr().err == f"litlab: {read_result(job.run)['error']}; its log is {job.run.log}\n"


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = LocalPool(PoolSettings(jobs=None, jobs_per_device=1, timeout=None, retries=0))
    try:
        with pytest.raises(UserError, match=r"(?s)exit code 1 before the first one.*libcudart.so.99: no such file"):
            pool.check([quick_config()])
    finally:
        pool.close()
