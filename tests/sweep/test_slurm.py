"""The SLURM backend against scripted commands. tests/cluster/ has the real ones."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from support.fake_slurm import UNREACHABLE, FakeSlurm, slurm
from support.queue_jobs import make_config, make_jobs, poll, submit

from litlab.config.schema import Slurm
from litlab.errors import UserError
from litlab.runs.heartbeat import Heartbeat
from litlab.runs.lock import file_lock
from litlab.sweep.backends import slurm as module
from litlab.sweep.backends.base import ExitCause, Job
from litlab.sweep.backends.queue import TemporaryErrors
from litlab.sweep.backends.slurm import SlurmBackend

__all__ = ["slurm"]  # a fixture

SETTINGS: dict[str, Any] = {
    "backend": "slurm", "jobs": None, "partition": None, "account": None, "qos": None, "time": None, "cpus": 1,
    "gpus": None, "gres": "gpu", "mem": None, "constraint": None, "exclude": None, "options": [], "setup": [],
    "warning": 60, "poll": 0.01, "retries": 0, "detach": False, "dry_run": False,
}  # fmt: skip


def make_backend(study: Path, **settings: Any) -> SlurmBackend:
    return SlurmBackend(Slurm(**SETTINGS | settings), study)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATE_SECONDS", 0.3)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.0)


def test_jobs_with_equal_needs_are_one_array(slurm: FakeSlurm, study: Path) -> None:
    backend = make_backend(study, jobs=4, setup=["module load cuda"], options=["--mail-type=FAIL"])
    jobs = make_jobs(study, 3)
    large = Job(3, make_jobs(study, 4)[3].run, make_config(devices=2))
    submit(backend, [*jobs, large])
    first, second = slurm.calls("sbatch")
    assert "--array=0-2%3" in first
    assert first[-5:] == ["--nodes=1", "--ntasks=1", "--cpus-per-task=1", "--requeue", "--mail-type=FAIL"]
    assert "--array=0-0%1" in second
    assert "--cpus-per-task=2" in second
    assert slurm.scripts()[0].splitlines()[:2] == ["#!/bin/sh", "module load cuda"]
    assert list(backend.queued().values()) == ["", "", "", ""]
    poll(backend)
    assert set(backend.queued().values()) == {"Resources"}
    slurm.set_state(jobs[0], "RUNNING")
    poll(backend)
    assert backend.queued().keys() == {1, 2, 3}


def test_a_large_study_is_cut_to_the_largest_array(slurm: FakeSlurm, study: Path) -> None:
    """Of the cluster; one squeue a look for all of them."""
    backend = make_backend(study)
    submit(backend, make_jobs(study, 8))
    arrays = [next(word for word in call if word.startswith("--array")) for call in slurm.calls("sbatch")]
    assert arrays == ["--array=0-2", "--array=0-2", "--array=0-1"]
    assert len(slurm.calls("squeue")) <= 2
    backend.poll(0.05)
    (names,) = (word for word in slurm.calls("squeue")[-1] if word.startswith("--name="))
    assert names.count("litlab-") == 3


@pytest.mark.parametrize(
    ("settings", "trainer", "options"),
    [
        ({}, {"devices": 2, "num_nodes": 3}, ["--nodes=3", "--ntasks-per-node=2", "--cpus-per-task=1"]),
        ({"cpus": 4}, {"devices": 2}, ["--nodes=1", "--ntasks=1", "--cpus-per-task=8"]),
        ({"gres": "gpu:a100"}, {"accelerator": "gpu", "devices": 2}, ["--gres=gpu:a100:2"]),
        ({"gpus": 3}, {"accelerator": "auto", "devices": "auto"}, ["--cpus-per-task=3", "--gres=gpu:3"]),
        ({"time": "1-12:00:00", "warning": 90}, {}, ["--time=1-12:00:00", "--signal=B:USR1@90"]),
        ({"partition": "main", "account": "lab", "qos": "low", "mem": "16G", "constraint": "ib", "exclude": "n1"}, {},
         ["--partition=main", "--account=lab", "--qos=low", "--mem=16G", "--constraint=ib", "--exclude=n1"]),
    ],
)  # fmt: skip
def test_resources_come_from_the_config_and_the_settings(
    slurm: FakeSlurm, study: Path, settings: dict[str, Any], trainer: dict[str, Any], options: list[str]
) -> None:
    make_backend(study, **settings).check([make_config(**trainer)])
    (call,) = slurm.calls("sbatch")
    assert set(options) <= set(call)


def test_what_the_cluster_can_never_give_is_refused(slurm: FakeSlurm, study: Path) -> None:
    backend = make_backend(study, partition="nope")
    slurm.fail("sbatch", "allocation failure: Requested node configuration is not available")
    with pytest.raises(
        UserError, match=r"^sbatch .*--partition=nope.*: Requested node configuration is not available$"
    ):
        backend.check([make_config(), make_config()])
    assert len(slurm.calls("sbatch")) == 1
    with pytest.raises(UserError, match=r"trainer\.devices=auto: a queue needs the number of GPUs"):
        backend.check([make_config(accelerator="gpu", devices="auto")])
    assert not study.exists()


def test_without_slurm_it_says_where_to_run(study: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match="no sbatch and no squeue and no scancel and no scontrol on the PATH; run this on a login"
    ):
        make_backend(study).start()


@pytest.mark.integrations
@pytest.mark.parametrize(
    ("state", "code", "status", "cause"),
    [
        ("COMPLETED", 0, "completed", None),
        ("FAILED", 1, "failed", None),
        ("FAILED", 137, None, None),  # killed by SIGKILL
        ("FAILED", 143, "interrupted", ExitCause.CANCELLED),  # by scancel --signal=TERM
        ("CANCELLED", 143, "interrupted", ExitCause.CANCELLED),
        ("TIMEOUT", 143, "interrupted", ExitCause.TIMED_OUT),
        ("NODE_FAIL", None, None, ExitCause.LOST),
        ("PREEMPTED", 143, "interrupted", ExitCause.LOST),
        ("FAILED", 75, None, ExitCause.LOST),  # another process has the run, and it could not return to the queue
        ("OUT_OF_MEMORY", 137, None, ExitCause.OUT_OF_MEMORY),
        ("CANCELLED", None, None, ExitCause.CANCELLED),  # before it started
    ],
)
def test_the_end_of_a_job(
    slurm: FakeSlurm, study: Path, state: str, code: int | None, status: str | None, cause: ExitCause | None
) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.set_state(job, "RUNNING")
    assert poll(backend) == []
    if code is None:
        slurm.set_state(job, state)
        assert poll(backend, 0.1) == []  # its files may be late
    else:
        slurm.end(job, code, status, state)
    (job_exit,) = poll(backend, 5)
    assert job_exit.job is job
    assert job_exit.cause is cause
    assert code is None or job_exit.code == (-signal.SIGKILL if code == 137 else code)
    assert poll(backend) == []


@pytest.mark.parametrize(("num_starts", "cause"), [(0, ExitCause.CANCELLED), (1, ExitCause.LOST)])
def test_a_job_that_slurm_has_forgotten(
    slurm: FakeSlurm, study: Path, num_starts: int, cause: ExitCause, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After MinJobAge only files tell: one that never started was cancelled, one without an end was lost."""
    monkeypatch.setattr(module, "MIN_JOB_AGE", 0.1)
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    for _ in range(num_starts):
        slurm.files(job).record_start()
    slurm.set_state(job, None)
    time.sleep(0.2)
    (job_exit,) = poll(backend, 5)
    assert job_exit.cause is cause


@pytest.mark.parametrize("code", [None, 143])
def test_a_job_that_slurm_has_lost(slurm: FakeSlurm, study: Path, code: int | None) -> None:
    """By a slurmctld that was killed before it saved its state: it forgets the job, whose daemon ends it then."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    if code is not None:
        slurm.files(job).record_exit(code)
    slurm.set_state(job, None)
    (job_exit,) = poll(backend, 5)
    assert job_exit.cause is ExitCause.LOST


def test_a_job_that_was_submitted_twice_is_one(slurm: FakeSlurm, study: Path) -> None:
    """The second element finds the run in use and ends; the job goes on."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.set_state(job, "RUNNING")
    slurm.duplicate(job, "FAILED")
    assert poll(backend, 0.6) == []


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_is_off_keeps_no_job(slurm: FakeSlurm, study: Path, minutes: int) -> None:
    """A heartbeat that the clock of another host has stamped; its lock names a process that has ended by now."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    (job.run.path / ".lock").write_text("process 1 on another-host")
    Heartbeat(step=1, epoch=0, time=time.time() + 60 * minutes, host="another-host", pid=1).write(job.run)
    for file in (job.run.heartbeat, job.run.path / ".lock"):
        os.utime(file, (time.time() + 60 * minutes,) * 2)
    slurm.set_state(job, "RUNNING")
    assert poll(backend, 0.2) == []
    slurm.end(job, 0, "completed")
    (job_exit,) = poll(backend, 5)
    assert (job_exit.code, job_exit.cause) == (0, None)


def test_a_state_alone_ends_no_job(slurm: FakeSlurm, study: Path) -> None:
    """One that is being requeued was once seen as COMPLETED, with the lock of the run held."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.files(job).record_exit(143)
    (job.run.path / ".lock").write_text(f"process {os.getpid()} on {os.uname().nodename}")
    slurm.set_state(job, "COMPLETED")
    assert poll(backend, 0.2) == []
    slurm.set_state(job, "PENDING", "BeginTime")
    assert poll(backend, 0.5) == []
    assert backend.queued() == {0: "BeginTime"}


def test_a_stopped_job_may_be_requeued(slurm: FakeSlurm, study: Path) -> None:
    """By scontrol requeue or preemption: it has saved and ended, and for a moment its state says that it has."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.end(job, 143, "interrupted", "CANCELLED")
    assert poll(backend, 0.15) == []
    slurm.set_state(job, "PENDING", "BeginTime")
    assert poll(backend, 0.5) == []
    assert backend.queued() == {0: "BeginTime"}


def test_a_job_that_returned_to_the_queue_by_itself_starts_soon(
    slurm: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SLURM would wait for two minutes, as it does after a node failure, when the job has to wait.

    It waits some seconds: a node refuses a job that it has killed within the same second.
    """
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.5)
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.set_state(job, "PENDING", "BeginTime")

    def updates() -> list[list[str]]:
        poll(backend)
        return [call for call in slurm.calls("scontrol") if call[0] == "update"]

    poll(backend, 0.8)
    assert updates() == []
    slurm.set_state(job, "RUNNING")
    updates()
    slurm.set_state(job, "PENDING", "BeginTime")
    slurm.files(job).record_requeue()
    assert updates() == []
    poll(backend, 0.8)
    assert updates() == [["update", "JobId=1_0", "StartTime=now"]]


def test_a_job_that_is_cancelled_while_it_waits_has_not_started(slurm: FakeSlurm, study: Path) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.set_state(job, "CANCELLED")
    assert poll(backend) == []  # its files may still come
    assert backend.queued() == {0: ""}


def test_another_command_takes_the_jobs_up(slurm: FakeSlurm, study: Path) -> None:
    jobs = make_jobs(study, 3)
    submit(make_backend(study), jobs)
    slurm.set_state(jobs[0], "RUNNING")
    slurm.end(jobs[2], 0, "completed")
    later = make_backend(study)
    assert [later.is_alive(job) for job in jobs] == [True, True, False]
    for job in jobs[:2]:
        later.attach(job)
    assert later.queued() == {1: "Resources"}
    assert later.queued_runs() == {jobs[1].run.path: "Resources"}
    slurm.end(jobs[0], 0, "completed")
    assert [job_exit.job for job_exit in poll(later, 5)] == [jobs[0]]
    assert len(slurm.calls("sbatch")) == 1


def hold(path: Path, seconds: float) -> None:
    with file_lock(path, wait=True):
        time.sleep(seconds)


def test_a_submission_that_outlives_its_command_is_waited_for(slurm: FakeSlurm, study: Path) -> None:
    """The command was killed while sbatch ran, which holds the lock of its list."""
    jobs = make_jobs(study, 1)
    submit(make_backend(study), jobs)
    (listed,) = (study / ".slurm").glob("*.list")
    process = multiprocessing.get_context("fork").Process(target=hold, args=(listed, 0.5))
    process.start()
    while True:
        try:
            with file_lock(listed, wait=False):
                time.sleep(0.01)
        except BlockingIOError:
            break
    assert make_backend(study).is_alive(jobs[0])
    process.join(0.1)
    assert not process.is_alive()


def test_an_answer_that_was_lost_submits_nothing_twice(
    slurm: FakeSlurm, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, jobs = make_backend(study), make_jobs(study, 2)
    slurm.lose_answer()
    submit(backend, jobs)
    assert "Socket timed out" in capsys.readouterr().err
    poll(backend)
    assert len(slurm.calls("sbatch")) == 1
    assert backend.queued() == {0: "Resources", 1: "Resources"}


def test_while_slurm_does_not_answer_nothing_is_concluded(
    slurm: FakeSlurm, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    slurm.fail("sbatch", f"sbatch: error: Batch job submission failed: {UNREACHABLE}")
    submit(backend, [job])
    poll(backend)
    slurm.fail("sbatch", None)
    poll(backend)
    assert backend.queued() == {0: "Resources"}
    slurm.fail("squeue", f"slurm_load_jobs error: {UNREACHABLE}")
    assert poll(backend, 0.6) == []
    assert capsys.readouterr().err.count(UNREACHABLE) == 2  # each error once
    with pytest.raises(UserError, match=r"the queue of SLURM can't be read"):
        make_backend(study).is_alive(job)


def test_a_command_waits_for_a_slurm_that_is_started_again(
    slurm: FakeSlurm, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can't start without an answer: for the check of resources, and for the jobs of an earlier command."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 20.0)
    (job,) = make_jobs(study, 1)
    submit(make_backend(study), [job])
    errors = []

    def answer_again(printer: TemporaryErrors, error: Exception) -> None:
        errors.append(str(error))
        for name in ("sbatch", "squeue"):
            slurm.fail(name, None)

    monkeypatch.setattr(TemporaryErrors, "print", answer_again)
    later = make_backend(study)
    slurm.fail("sbatch", f"allocation failure: {UNREACHABLE}")
    later.check([make_config()])
    slurm.fail("squeue", f"slurm_load_jobs error: {UNREACHABLE}")
    assert later.is_alive(job)
    assert errors == [f"allocation failure: {UNREACHABLE}", f"slurm_load_jobs error: {UNREACHABLE}"]


def test_an_error_that_stays_is_raised(slurm: FakeSlurm, study: Path) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    slurm.fail("sbatch", "sbatch: error: Batch job submission failed: Invalid account or account/partition combination")
    backend.submit(job)
    with pytest.raises(UserError, match="Invalid account"):
        backend.poll(0)


def test_jobs_are_cancelled_in_one_call(slurm: FakeSlurm, study: Path) -> None:
    backend, jobs = make_backend(study), make_jobs(study, 3)
    submit(backend, jobs[:2])
    backend.submit(jobs[2])
    for job in jobs:
        backend.cancel(job, signal.SIGTERM)
    exits = poll(backend, 5)
    assert [(job_exit.job.number, job_exit.cause) for job_exit in exits] == [(2, None)]  # was not submitted yet
    exits = poll(backend, 5)
    assert sorted((job_exit.job.number, job_exit.code, job_exit.cause) for job_exit in exits) == [
        (0, 143, None),
        (1, 143, None),
    ]
    assert [sorted(call) for call in slurm.calls("scancel")] == [["1_0", "1_1"]]
    assert len(slurm.calls("sbatch")) == 1


def test_the_output_of_a_job_that_could_not_start_is_its_log(slurm: FakeSlurm, study: Path) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    slurm.files(job).output.write_text("/bin/sh: module: not found\n")
    slurm.set_state(job, "FAILED")
    (job_exit,) = poll(backend, 5)
    assert job_exit.code == 1
    assert job.run.log.read_text() == "/bin/sh: module: not found\n"
