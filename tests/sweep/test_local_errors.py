"""A server that cannot start, and what a single run says where a job of the pool is classified: in words."""

import errno
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest
from support.pool_jobs import new_job, quick_config

from litlab.errors import RunFailed, UserError
from litlab.process.child_process import FAILED
from litlab.process.controller import run_worker
from litlab.process.fork_server import ForkRequest, Server
from litlab.runs.result import read_result
from litlab.sweep.backends.base import JobExit
from litlab.sweep.backends.local import LocalPool, OomMonitor, PoolSettings
from litlab.sweep.outcome import determine_outcome


def test_code_that_exits_with_zero_leaves_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = new_job(tmp_path, 1, quick_config())
    with pytest.raises(RunFailed) as failed:
        run_worker(job.run, job.config, keep=True)
    assert failed.value.exit_code == 1
    assert read_result(job.run)["error"] == "the worker ended with exit code 0 and no result: something called exit()"
    assert capfd.readouterr().err == f"litlab: {read_result(job.run)['error']}; its log is {job.run.log}\n"


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs no room in /tmp for that."""
    monkeypatch.setattr("tempfile.tempdir", "/proc/full")
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = LocalPool(PoolSettings(jobs=None, jobs_per_device=1, timeout=None, retries=0))
    try:
        with pytest.raises(UserError, match=r"(?s)exit code 1 before the first one.*libcudart.so.99: no such file"):
            pool.check([quick_config()])
    finally:
        pool.close()


def test_a_server_that_cannot_fork_says_so_in_the_log_of_the_job_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("os.fork", fails)  # no limit holds for root, who may run these tests
    job = new_job(tmp_path, 7, quick_config())
    reports, sink = os.pipe()
    request = ForkRequest(module="litlab.training.worker", arguments=[], environment={}, stderr=str(job.run.log))
    Server(sink).answer({"fork": 7, **asdict(request)})
    os.close(sink)
    with os.fdopen(reports) as told:
        assert json.load(told) == {"ended": 7, "code": FAILED}
    outcome = determine_outcome(JobExit(job, FAILED, 0.0))
    assert (outcome.status, outcome.log) == (
        "failed", ("litlab: no process can be started: Resource temporarily unavailable",)
    )  # fmt: skip


def test_a_shortage_of_memory_is_one_for_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed by hand long after another was for want of memory was killed by hand."""
    counts = tmp_path / "vmstat"
    counts.write_text("oom_kill 3\n")
    monkeypatch.setattr("litlab.sweep.backends.local.VMSTAT", counts)
    monkeypatch.setattr("litlab.sweep.backends.local.OOM_SECONDS", 0.2)
    monitor = OomMonitor()
    assert not monitor.killed_recently(), "the three were before"
    counts.write_text("oom_kill 4\n")
    assert monitor.killed_recently()
    time.sleep(0.2)
    assert not monitor.killed_recently()
