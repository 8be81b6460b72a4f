"""Tests of the local pool with real jobs: what they compute and see, and how they end."""

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from support.pool_jobs import (
    PATIENCE,
    endless,
    new_job,
    next_ended,
    process_facts,
    quick_config,
    result,
    run_all,
    trained_here,
    until,
    with_settings,
)
from support.processes import group, is_alive, is_stopped, wait_until
from support.warm import WarmProcess

from litlab.errors import RunFailed, UserError
from litlab.process.child_process import FAILED
from litlab.process.controller import run_worker
from litlab.process.device_leases import DeviceLeases
from litlab.process.fork_server import ForkRequest, Server
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import JobExit
from litlab.sweep.backends.device_allocator import Machine
from litlab.sweep.backends.local import LocalPool, OomMonitor, PoolSettings
from litlab.sweep.outcome import determine_outcome

RANK = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID")
_COMMAND = """
import sys
from pathlib import Path
from litlab.runs.directory import RunDirectory
from litlab.sweep.backends.base import Job
from litlab.sweep.backends.device_allocator import Machine
from litlab.sweep.backends.local import LocalPool, PoolSettings

settings = PoolSettings(jobs=None, jobs_per_device=1, timeout=None, retries=0)
pool = LocalPool(settings, Machine(gpus=("0",), cores=1))
run = RunDirectory(Path(sys.argv[1]))
pool.submit(Job(0, run, run.read_config()))
while True:
    pool.poll(1)
"""
pytestmark = pytest.mark.usefixtures("fresh")


@pytest.mark.integrations
def test_each_job_has_its_own_process_group_and_environment(
    pool: LocalPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run two jobs at once, and one after them.

    Rank variables of the controller's scheduler would hang a run. A pipe of the server in a job, or in its child, would
    keep the controller waiting for the end of the server.
    """
    jobs = [new_job(tmp_path, number, quick_config()) for number in range(3)]
    for name in RANK:
        monkeypatch.setenv(name, "3")
    for job in jobs[:2]:
        monkeypatch.setenv("JOB_OF_THE_TEST", str(job.number))
        pool.submit(job)
    assert not pool.has_capacity(jobs[2].config)
    next_ended(pool, 2)
    monkeypatch.delenv("JOB_OF_THE_TEST")
    run_all(pool, jobs[2:])
    facts_of_jobs = [process_facts(job) for job in jobs]
    assert [facts["environment"].get("JOB_OF_THE_TEST") for facts in facts_of_jobs] == ["0", "1", None]
    assert [facts["libc"] for facts in facts_of_jobs] == ["0", "1", None]
    assert len({facts["pid"] for facts in facts_of_jobs}) == 3
    server = Path(f"/proc/{facts_of_jobs[0]['environment']['LITLAB_PARENT']}/fd")
    pipes = {str(descriptor.readlink()) for descriptor in server.iterdir() if "pipe" in str(descriptor.readlink())}
    assert len(pipes) >= 3
    kept = {name for name in os.environ if name not in RANK and not name.startswith(("PL_", "OMP_", "MKL_"))}
    for facts in facts_of_jobs:
        assert not pipes & set(facts["descriptors"])
        assert facts["group"] == facts["pid"] != os.getpgid(0)
        assert facts["input"] == ""
        assert not set(RANK) & set(facts["environment"])
        assert {name: facts["environment"].get(name) for name in kept} == {name: os.environ[name] for name in kept}


@pytest.mark.integrations
def test_timeout(pool: LocalPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time out a job that saves and one that ignores signals; a second in which they are paused does not count."""
    monkeypatch.setattr("litlab.sweep.backends.local.GRACE_SECONDS", 2.0)
    timed = with_settings(pool, timeout=3)
    slow, deaf = new_job(tmp_path, 1, endless()), new_job(tmp_path, 2, quick_config(how="hang"))
    timed.submit(slow)
    timed.submit(deaf)
    until(lambda: all((job.run.path / "process.0.json").exists() for job in (slow, deaf)), timed)
    timed.pause()
    wait_until(lambda: all(is_stopped(process_facts(job)["pid"]) for job in (slow, deaf)), seconds=1)
    time.sleep(1)
    timed.resume()
    ended = {job_exit.job.number: job_exit for job_exit in next_ended(timed, 2)}
    assert determine_outcome(ended[1]).status == determine_outcome(ended[2]).status == RunStatus.TIMED_OUT
    assert ended[1].code == 143
    assert slow.run.last.exists()
    assert ended[2].code == -signal.SIGKILL
    assert 6 <= ended[2].seconds < 9


@pytest.mark.integrations
def test_a_cancelled_job_saves_and_stops(pool: LocalPool, tmp_path: Path) -> None:
    """Cancel a job of one rank and one of two; no process of their groups is left."""
    jobs = [new_job(tmp_path, 1, endless()), new_job(tmp_path, 2, endless(devices=2))]
    for job in jobs:
        pool.submit(job)
    until(lambda: all(job.run.metrics.exists() for job in jobs), pool)
    groups = [process_facts(job)["group"] for job in jobs]
    assert [len(group(leader)) for leader in groups] == [1, 3]
    for job in jobs:
        pool.cancel(job, signal.SIGINT)
    started = time.monotonic()
    ended = {job_exit.job.number: job_exit for job_exit in next_ended(pool, 2)}
    assert time.monotonic() - started < 10
    for job in jobs:
        assert determine_outcome(ended[job.number]).status == RunStatus.INTERRUPTED
        assert ended[job.number].code == 130
        assert torch.load(job.run.last, weights_only=False)["global_step"] > 0
    assert not any(map(group, groups)), "their devices are free"
    pool.cancel(jobs[0], signal.SIGKILL)  # it has ended: nothing happens


@pytest.mark.integrations
def test_the_ranks_of_a_killed_leader_end(pool: LocalPool, tmp_path: Path) -> None:
    job = new_job(tmp_path, 1, endless(devices=2))
    pool.submit(job)
    until(lambda: job.run.metrics.exists(), pool)
    leader = process_facts(job)["group"]
    assert len(group(leader)) == 3
    os.kill(leader, signal.SIGKILL)
    (ended,) = next_ended(pool, 1)
    assert determine_outcome(ended).status == RunStatus.KILLED
    assert not group(leader), "their devices are free"


@pytest.mark.integrations
def test_jobs_see_their_allocated_gpus(pool: LocalPool, tmp_path: Path) -> None:
    """The jobs train on the CPU, in the environment that they would have with GPUs."""
    four = with_settings(pool, jobs=None, machine=Machine(gpus=("0", "1", "2", "3"), cores=8))
    jobs = [new_job(tmp_path, number, quick_config(accelerator="auto")) for number in range(5)]
    jobs.append(new_job(tmp_path, 5, quick_config(accelerator="cpu")))
    for job in (*jobs[:4], jobs[5]):
        four.submit(job)
    assert not four.has_capacity(jobs[4].config)
    seen = next_ended(four, 1)
    four.submit(jobs[4])
    next_ended(four, 6 - len(seen))
    visible = [process_facts(job)["environment"].get("CUDA_VISIBLE_DEVICES") for job in jobs]
    assert visible[:4] == ["0", "1", "2", "3"]
    assert visible[5] == ""
    first = seen[0].job.number
    assert visible[4] == (str(first) if first < 4 else visible[4])


def test_a_job_waits_for_a_device_of_another_command(pool: LocalPool, tmp_path: Path) -> None:
    """The jobs train on the CPU, as if there was one GPU, which another command has at first."""
    others = DeviceLeases()
    others.take(["gpu-0"], 1)
    one = with_settings(pool, jobs=None, machine=Machine(gpus=("0",), cores=8))
    one._folder = tmp_path
    job, cancelled = (new_job(tmp_path, number, endless(accelerator="auto")) for number in range(2))
    reason = f"GPU 0 is in use by process {os.getpid()} on {os.uname().nodename}"
    one.submit(cancelled)
    assert not one.has_capacity(job.config)
    assert one.is_alive(cancelled)
    assert one.queued() == {1: reason}
    with directory_lock(tmp_path):
        assert one.queued_runs() == {cancelled.run.path: reason}
    assert one.queued_runs() == {}, "nobody is at work on the study"
    one.cancel(cancelled, signal.SIGTERM)
    (ended,) = one.poll(0.1)
    assert (ended.job, ended.code) == (cancelled, 143)
    one.submit(job)
    assert one.poll(0.3) == []
    assert not job.run.log.exists()
    others.release(["gpu-0"])
    until(lambda: job.run.metrics.exists(), one)
    assert (one.queued(), process_facts(job)["environment"]["CUDA_VISIBLE_DEVICES"]) == ({}, "0")
    assert not (tmp_path / ".waiting.json").exists()
    assert others.take(["gpu-0"], 1) == ([], ["gpu-0"])
    one.cancel(job, signal.SIGTERM)
    next_ended(one, 1)
    assert others.take(["gpu-0"], 1) == (["gpu-0"], [])
    others.release(["gpu-0"])


@pytest.mark.integrations
def test_a_job_keeps_its_device_when_its_command_is_killed(tmp_path: Path) -> None:
    """The job ignores the signal to save, so that it outlives the command for seconds."""
    job = new_job(tmp_path, 0, quick_config(how="hang", accelerator="auto"))
    others = DeviceLeases()
    (tmp_path / "starts_job.py").write_text(_COMMAND)
    variables = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = WarmProcess(["starts_job", str(job.run.path)], tmp_path, environment=variables)
    wait_until(lambda: (job.run.path / "process.0.json").exists() or command.poll() is not None)
    assert others.take(["gpu-0"], 1) == ([], ["gpu-0"])
    command.kill()
    command.wait()
    leader = process_facts(job)["group"]
    assert others.take(["gpu-0"], 1) == ([], ["gpu-0"])
    assert is_alive(leader)
    os.kill(leader, signal.SIGKILL)
    wait_until(lambda: others.take(["gpu-0"], 1) == (["gpu-0"], []))
    others.release(["gpu-0"])


def test_missing_devices_are_refused(pool: LocalPool) -> None:
    two_cores = with_settings(pool, machine=Machine(gpus=(), cores=2))
    with pytest.raises(UserError) as refused:
        two_cores.check([quick_config(devices=3), quick_config(accelerator="gpu")])
    assert str(refused.value).splitlines() == [
        "trainer.devices=3: this machine has 2 CPU cores",
        "trainer.accelerator=gpu: this machine has no GPU that CUDA can use",
    ]


@pytest.mark.integrations
def test_three_jobs_of_two_ranks(pool: LocalPool, fresh: Callable[[], RunDirectory], tmp_path: Path) -> None:
    """Compare the results with those of a run of two new processes."""
    jobs = [new_job(tmp_path, number, quick_config(devices=2)) for number in range(3)]
    ended = run_all(pool, jobs)
    expected = result(fresh())
    for job in jobs:
        assert determine_outcome(ended[job.number]).status == RunStatus.COMPLETED
        assert result(job.run) == expected
        assert expected["test"]
        assert {process_facts(job, rank)["environment"]["RANK"] for rank in (0, 1)} == {"0", "1"}
        assert not group(process_facts(job)["group"])
    assert len({process_facts(job, 1)["pid"] for job in jobs}) == 3


@pytest.mark.integrations
def test_a_job_starts_quickly_and_logs_each_line_once(
    pool: LocalPool, fresh: Callable[[], RunDirectory], tmp_path: Path
) -> None:
    """Compare its start with that of a new interpreter, which takes seconds, more of them on a busy machine."""
    limit = read_result(fresh())["seconds"]["import"] / 4
    job = new_job(tmp_path, 1, quick_config())
    submitted = time.monotonic()
    pool.submit(job)
    until(lambda: job.run.log.exists(), pool)
    wait_until(job.run.log.read_text)
    seconds = time.monotonic() - submitted
    assert seconds < limit, "0.1 s on an idle machine, most of it the data"
    (ended,) = next_ended(pool, 1)
    assert determine_outcome(ended).status == RunStatus.COMPLETED
    assert ended.seconds < PATIENCE
    lines = job.run.log.read_text().splitlines()
    assert [line for line in lines if line.startswith("printed by")] == ["printed by rank 0"]
    assert sum("training     cpu, 32-true" in line for line in lines) == 1
    assert sum("1 epoch, 10 steps: training" in line for line in lines) == 1
    assert read_result(job.run)["seconds"]["import"] < limit, "counted from the fork"


@pytest.mark.integrations
def test_a_fork_trains_to_the_same_bits_as_another_process(pool: LocalPool, tmp_path: Path) -> None:
    """Compare jobs of one thread and of two."""
    configs = [quick_config() | {"threads": threads} for threads in (1, 2)]
    jobs = [new_job(tmp_path, number, config) for number, config in enumerate(configs)]
    ended = run_all(pool, jobs)
    here = [trained_here(tmp_path / "here" / str(config["threads"]), config) for config in configs]
    assert [job_exit.code for job_exit in ended.values()] == [0, 0]
    assert [process_facts(job)["threads"] for job in jobs] == [1, 2]
    assert [result(job.run) for job in jobs] == [result(run) for run in here]
    assert result(here[0])["weights"] != result(here[1])["weights"], "or this shows nothing"


@pytest.mark.integrations
def test_a_killed_server_is_replaced(pool: LocalPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the server of a job that saves, one that ignores signals and one whose request it had not read.

    This has to be the last test that uses the pool: it closes it.
    """
    monkeypatch.setattr("litlab.process.fork_server.GRACE", 2.0)
    three = with_settings(pool, jobs=3)
    saves, deaf, unread = jobs = [
        new_job(tmp_path, n, config) for n, config in enumerate((endless(), quick_config(how="hang"), endless()))
    ]
    three.submit(saves)
    three.submit(deaf)
    until(lambda: saves.run.metrics.exists() and (deaf.run.path / "process.0.json").exists(), three)
    server = int(process_facts(saves)["environment"]["LITLAB_PARENT"])
    os.kill(server, signal.SIGSTOP)
    three.submit(unread)
    os.kill(server, signal.SIGKILL)
    ended = next_ended(three, 2)
    assert [(job_exit.job, job_exit.code) for job_exit in ended] == [(saves, 143), (deaf, -signal.SIGKILL)]
    assert [determine_outcome(job_exit).status for job_exit in ended] == ["interrupted", "killed"]
    assert read_result(saves.run)["error"].startswith("stopped by SIGTERM, saved at step")
    assert not any(group(process_facts(job)["group"]) for job in jobs[:2])
    until(lambda: unread.run.metrics.exists(), three)
    second = int(process_facts(unread)["environment"]["LITLAB_PARENT"])
    started = time.monotonic()
    three.close()
    assert time.monotonic() - started < 10
    assert not is_alive(second)
    assert not group(process_facts(unread)["group"])
    assert read_result(unread.run)["error"].startswith("stopped by SIGTERM, saved at step")


def test_a_worker_that_exits_with_zero_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(0)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    job = new_job(tmp_path, 1, quick_config())
    with pytest.raises(RunFailed) as failed:
        run_worker(job.run, job.config, keep=True)
    assert failed.value.exit_code == 1
    assert read_result(job.run)["error"] == "the worker ended with exit code 0 and no result: the code called exit()"
    assert capfd.readouterr().err == f"litlab: {read_result(job.run)['error']}; its log is {job.run.log}\n"


def test_a_server_that_cannot_start_gives_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output of the server needs no space in /tmp."""
    monkeypatch.setattr("tempfile.tempdir", "/proc/full")
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.99: no such file')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    pool = LocalPool(PoolSettings(jobs=None, jobs_per_device=1, timeout=None, retries=0))
    try:
        with pytest.raises(UserError, match=r"(?s)exit code 1 before the first one.*libcudart.so.99: no such file"):
            pool.check([quick_config()])
    finally:
        pool.close()


def test_a_failed_fork_is_logged_and_the_server_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> int:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr("os.fork", fails)  # no limit holds for root, who may run these tests
    job = new_job(tmp_path, 7, quick_config())
    reports, sink = os.pipe()
    request = ForkRequest(module="litlab.training.worker", arguments=[], environment={}, stderr=str(job.run.log))
    Server(sink).answer({"fork": 7, **asdict(request)})
    os.close(sink)
    with os.fdopen(reports) as file:
        assert json.load(file) == {"ended": 7, "code": FAILED}
    outcome = determine_outcome(JobExit(job, FAILED, 0.0))
    assert (outcome.status, outcome.log) == (
        "failed", ("litlab: no process can be started: Resource temporarily unavailable",)
    )  # fmt: skip


def test_an_oom_kill_counts_for_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is killed by hand long after an OOM kill is no victim of it."""
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
