"""The Ray backend against a service that answers as Ray's. tests/cluster/ has the real one."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.composed_jobs import create, plan_of, seeds
from support.fake_ray import GIVEN_UP, NODE_DIED, FakeRay, ray
from support.queue_jobs import make_config, make_jobs, poll, submit

from litlab.cli import status
from litlab.config.schema import Ray
from litlab.errors import UserError
from litlab.sweep.backends import ray as module
from litlab.sweep.backends import ray_job
from litlab.sweep.backends.base import ExitCause
from litlab.sweep.backends.ray import RayBackend
from litlab.sweep.outcome import determine_outcome
from litlab.sweep.study import Study

__all__ = ["ray"]  # a fixture

SETTINGS: dict[str, Any] = {
    "backend": "ray", "address": None, "jobs": None, "cpus": 1, "gpus": None, "mem": None, "resources": {},
    "setup": [], "grace": 30, "poll": 0.01, "retries": 0, "detach": False, "dry_run": False,
}  # fmt: skip


def make_backend(study: Path, **settings: Any) -> RayBackend:
    return RayBackend(Ray(**SETTINGS | settings), study)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return tmp_path / "study"


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LATE_SECONDS", 0.3)


@pytest.mark.parametrize(
    ("settings", "trainer", "resources"),
    [
        ({}, {}, {"entrypoint_num_cpus": 1.0, "entrypoint_num_gpus": 0.0, "entrypoint_resources": None}),
        ({"cpus": 4}, {"devices": 2}, {"entrypoint_num_cpus": 8.0}),
        ({}, {"accelerator": "gpu", "devices": 2}, {"entrypoint_num_cpus": 2.0, "entrypoint_num_gpus": 2.0}),
        ({"gpus": 3}, {"devices": "auto"}, {"entrypoint_num_cpus": 3.0, "entrypoint_num_gpus": 3.0}),
        ({"mem": "2G"}, {}, {"entrypoint_memory": 2 << 30}),
        ({"resources": {"TPU": 1.0}}, {}, {"entrypoint_resources": {"TPU": 1.0}}),
    ],
)  # fmt: skip
def test_resources_come_from_the_config_and_the_settings(
    ray: FakeRay, study: Path, settings: dict[str, Any], trainer: dict[str, Any], resources: dict[str, Any]
) -> None:
    submit(make_backend(study, **settings), make_jobs(study, 1, **trainer))
    (submission,) = ray.submissions
    assert submission.items() >= resources.items()
    assert submission["runtime_env"] == {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "30"}}  # and nothing of this process


def test_the_threads_of_a_process_are_its_cores(ray: FakeRay, study: Path) -> None:
    """They are frozen in the config: Ray sets OMP_NUM_THREADS=1, which the worker replaces by them."""
    backend = make_backend(study, cpus=3)
    assert backend.threads(make_config(), 1) == 3
    assert backend.threads(make_config() | {"threads": 2}, 1) == 2


def test_jobs_wait_run_and_end(ray: FakeRay, study: Path) -> None:
    backend, jobs = make_backend(study), make_jobs(study, 3)
    for job in jobs:
        backend.submit(job)
    assert backend.queued() == {0: "", 1: "", 2: ""}
    assert poll(backend) == []
    assert set(backend.queued().values()) == {"Resources"}
    ray.set_status(jobs[0], "RUNNING")
    poll(backend)
    assert backend.queued().keys() == {1, 2}
    ray.end(jobs[0], 0, "completed")
    (job_exit,) = poll(backend, 5)
    assert (job_exit.job, job_exit.code, job_exit.cause) == (jobs[0], 0, None)
    assert job_exit.seconds > 0


def test_at_most_jobs_are_handed_over(ray: FakeRay, study: Path) -> None:
    backend, jobs = make_backend(study, jobs=2), make_jobs(study, 2)
    assert backend.has_capacity(jobs[0].config)
    submit(backend, jobs)
    assert not backend.has_capacity(jobs[0].config)


@pytest.mark.parametrize(
    ("values", "code", "cause"),
    [
        ({"status": "STOPPED"}, 143, ExitCause.CANCELLED),  # by somebody
        ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED", "message": NODE_DIED}, -9, ExitCause.LOST),
        ({"status": "FAILED", "message": "Unexpected error: failed to get job supervisor."}, -9, ExitCause.LOST),
        ({"status": "FAILED", "error_type": "JOB_SUPERVISOR_ACTOR_DIED", "message": "The worker died."}, -9, None),
        ({"status": "FAILED", "message": "killed due to the node running low on memory"}, -9, ExitCause.OUT_OF_MEMORY),
        ({"status": "FAILED", "driver_exit_code": -9}, -9, None),
        ({"status": "FAILED", "driver_exit_code": 75}, 75, ExitCause.LOST),  # another worker is at work
        ({"status": "FAILED", "driver_exit_code": 3}, 3, None),
    ],
)  # fmt: skip
def test_the_end_of_a_job(
    ray: FakeRay, study: Path, values: dict[str, Any], code: int, cause: ExitCause | None
) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    ray.set_status(job, "RUNNING")
    assert poll(backend) == []
    ray.set_status(job, **values)
    (job_exit,) = poll(backend, 5)
    assert (job_exit.code, job_exit.cause) == (code, cause)


def test_a_head_that_was_started_anew_has_lost_its_jobs(ray: FakeRay, study: Path) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    ray.jobs.clear()
    (job_exit,) = poll(backend, 5)
    assert job_exit.cause is ExitCause.LOST


def test_a_lost_job_whose_worker_is_alive_has_not_ended(ray: FakeRay, study: Path) -> None:
    """Its node is cut off from Ray, but not from the file system."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    lock = job.run.path / ".lock"
    lock.write_text(f"process {os.getpid()} on {os.uname().nodename}")
    ray.set_status(job, "FAILED", error_type="JOB_SUPERVISOR_ACTOR_DIED", message=NODE_DIED)
    assert poll(backend, 0.6) == []
    lock.write_text("")
    (job_exit,) = poll(backend, 5)
    assert job_exit.cause is ExitCause.LOST


def test_a_completed_job_whose_result_is_late(ray: FakeRay, study: Path) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    ray.end(job, 0, None)
    assert poll(backend, 0.15) == []
    ray.end(job, 0, "completed")
    (job_exit,) = poll(backend, 5)
    assert determine_outcome(job_exit).is_success


def test_a_job_that_ray_gives_up_is_submitted_again(ray: FakeRay, study: Path) -> None:
    """It has waited for 15 minutes; its id can't be used again."""
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    first = ray.last_id(job)
    ray.set_status(job, "FAILED", error_type="JOB_SUPERVISOR_ACTOR_START_TIMEOUT", message=GIVEN_UP)
    assert poll(backend) == []
    assert ray.last_id(job) != first
    assert len(ray.submissions) == 2
    assert backend.queued() == {0: "Resources"}


def test_another_command_takes_the_jobs_up(ray: FakeRay, study: Path, tmp_path: Path) -> None:
    """Also on a host that has mounted the study elsewhere."""
    jobs = make_jobs(study, 3)
    submit(make_backend(study), jobs)
    ray.set_status(jobs[0], "RUNNING")
    ray.end(jobs[2], 0, "completed")
    mount = tmp_path / "mount"
    mount.symlink_to(study)
    later, jobs = make_backend(mount), make_jobs(mount, 3)
    assert [later.is_alive(job) for job in jobs] == [True, True, False]
    for job in jobs[:2]:
        later.attach(job)
    assert later.queued() == {1: "Resources"}
    assert later.queued_runs() == {jobs[1].run.path: "Resources"}
    ray.end(jobs[0], 0, "completed")
    assert [job_exit.job for job_exit in poll(later, 5)] == [jobs[0]]
    assert len(ray.submissions) == 3


def test_a_later_command_uses_no_id_again(ray: FakeRay, study: Path) -> None:
    (job,) = make_jobs(study, 1)
    backend = make_backend(study)
    submit(backend, [job])
    ray.set_status(job, "FAILED", driver_exit_code=1)
    assert len(poll(backend, 5)) == 1
    submit(make_backend(study), [job])
    assert [key.split("-")[2] for key in ray.jobs] == ["0", "0"]


def test_the_jobs_of_another_study_are_none_of_this_one(ray: FakeRay, study: Path, tmp_path: Path) -> None:
    submit(make_backend(study), make_jobs(study, 1))
    other = tmp_path / "other"
    assert not make_backend(other).is_alive(make_jobs(other, 1)[0])
    assert make_backend(other).queued_runs() == {}


def test_an_answer_that_was_lost_submits_nothing_twice(
    ray: FakeRay, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    ray.loses_answers = True
    submit(backend, [job])
    assert "does not answer" in capsys.readouterr().err
    ray.loses_answers = False
    poll(backend)
    assert len(ray.submissions) == 1
    assert backend.queued() == {0: "Resources"}


def test_while_ray_does_not_answer_nothing_is_concluded(
    ray: FakeRay, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, jobs = make_backend(study), make_jobs(study, 2)
    submit(backend, jobs[:1])
    ray.error = (500, "No available agent to submit job, please try again later.")
    backend.submit(jobs[1])
    assert poll(backend, 0.6) == []
    assert capsys.readouterr().err == f"litlab: Ray at {ray.address} answers 500: {ray.error[1]}\n"
    with pytest.raises(UserError, match=r"the jobs of Ray can't be listed: Ray at .* answers 500"):
        make_backend(study).is_alive(jobs[0])
    ray.error = None
    poll(backend)
    assert backend.queued() == {0: "Resources", 1: "Resources"}


def test_a_head_that_is_not_there(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(
        UserError, match=r"^hydra/launcher=ray: Ray at http://127\.0\.0\.1:1 does not answer: .*refused"
    ):
        make_backend(study, address="http://127.0.0.1:1/").check([make_config()])
    assert not study.exists()


@pytest.mark.parametrize(
    ("variables", "error"),
    [
        ({}, "wants a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to the token or RAY_AUTH_TOKEN_PATH to its"),
        ({"RAY_AUTH_TOKEN": "secret"}, "wants a token"),  # Ray sends it only with RAY_AUTH_MODE
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "other"}, "refuses the token of RAY_AUTH_TOKEN$"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "wrong"}, "refuses the token of RAY_AUTH_TOKEN_PATH=wrong$"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": "none"}, "PATH=none: the token can't be read"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a\nb"}, "RAY_AUTH_TOKEN: expected a token in one line"),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret"}, ""),
        ({"RAY_AUTH_MODE": "TOKEN", "RAY_AUTH_TOKEN_PATH": "right"}, ""),
        ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "secret", "RAY_AUTH_TOKEN_PATH": "wrong"}, ""),
        ({"RAY_AUTH_MODE": "token"}, ""),  # in the file in the home
    ],
)  # fmt: skip
def test_the_token_is_found_as_ray_finds_it(
    ray: FakeRay, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], error: str
) -> None:
    ray.token = "secret"
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret\n")
    (tmp_path / "wrong").write_text("other\n")
    (tmp_path / "right").write_text(" secret\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if not error:
        make_backend(study).check([make_config()])
        return
    with pytest.raises(UserError, match=error) as caught:
        make_backend(study).check([make_config()])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "variables", "address"),
    [
        (None, {}, "http://127.0.0.1:8265"),
        (None, {"RAY_ADDRESS": "http://a:1"}, "http://a:1"),
        (None, {"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": "https://b/ray/"}, "https://b/ray"),
        ("http://c:1", {"RAY_ADDRESS": "http://a:1"}, "http://c:1"),
        (None, {"RAY_ADDRESS": "a:6379"}, r"^RAY_ADDRESS=a:6379: expected the address of the dashboard of Ray"),
        ("ray://a:1", {}, r"^hydra\.launcher\.address=ray://a:1: expected"),
        ("http://me:secret@a:1", {}, r"^hydra\.launcher\.address=a:1: expected .* without a name or password"),
    ],
)  # fmt: skip
def test_the_address_of_the_dashboard(
    study: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, variables: dict[str, str], address: str
) -> None:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if "expected" in address:
        with pytest.raises(UserError, match=address):
            make_backend(study, address=setting)
    else:
        assert make_backend(study, address=setting)._client.address == address


def test_the_token_goes_nowhere_else(ray: FakeRay, study: Path) -> None:
    ray.error = (302, "http://127.0.0.1:1/")
    with pytest.raises(UserError, match="answers 302"):
        make_backend(study).check([make_config()])
    assert len(ray.requests) == 1


def test_what_no_node_can_ever_give_is_refused(ray: FakeRay, study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    backend = make_backend(study, mem="1G")
    with pytest.raises(UserError) as caught:
        backend.check([make_config(accelerator="gpu"), make_config(devices=4), make_config(num_nodes=2), make_config()])
    assert str(caught.value).splitlines() == [
        f"Ray 2.60.0 at {ray.address}: no node has 1 CPU, 1 GPU, 1 GiB of memory for a job; they have 2 CPUs, 0 GPUs, "
        "17.6 GiB of memory",
        f"Ray 2.60.0 at {ray.address}: no node has 4 CPUs, 1 GiB of memory for a job; they have 2 CPUs, 17.6 GiB of "
        "memory",
        "trainer.num_nodes=2: expected 1 with hydra/launcher=ray, which runs a job on one node; hydra/launcher=slurm "
        "and torchrun train on several",
    ]
    ray.node_type = "workergroup"  # of an autoscaler, which may have others
    backend.check([make_config(accelerator="gpu")])
    assert capsys.readouterr().out == (
        f"Ray 2.60.0 at {ray.address}: 2 CPUs, 0 GPUs on 1 node, all of which have to see {study}\n"
    )
    assert not ray.submissions
    assert not study.exists()


@pytest.mark.parametrize(("version", "is_old"), [("2.9.3", True), ("2.10.0", False), ("3.0.0.dev0", False)])
def test_old_versions_are_refused(ray: FakeRay, study: Path, version: str, is_old: bool) -> None:
    ray.version = version
    if not is_old:
        make_backend(study).check([make_config()])
        return
    with pytest.raises(UserError, match=r"^Ray 2\.9\.3 at .*: expected Ray 2\.10 or newer$"):
        make_backend(study).check([make_config()])


def test_another_service_is_not_taken_for_ray(ray: FakeRay, study: Path) -> None:
    ray.error = (200, "<html>Log in</html>")
    with pytest.raises(UserError, match="/api/version is no page of Ray's dashboard: its answer is no JSON"):
        make_backend(study).check([make_config()])


def test_jobs_are_cancelled(ray: FakeRay, study: Path) -> None:
    """One that runs saves; one that waits is marked, since Ray starts it nevertheless; one was not submitted yet."""
    backend, jobs = make_backend(study), make_jobs(study, 3)
    submit(backend, jobs[:2])
    ray.set_status(jobs[0], "RUNNING")
    poll(backend)
    backend.submit(jobs[2])
    for job in jobs:
        backend.cancel(job, signal.SIGTERM)
    exits = poll(backend, 5) + poll(backend, 1)
    assert sorted((job_exit.job.number, job_exit.code, job_exit.cause) for job_exit in exits) == [
        (0, 143, None),
        (1, 143, None),
        (2, 143, None),
    ]
    assert len(ray.calls("POST /api/jobs/litlab-")) == 2
    assert ray.jobs[ray.last_id(jobs[1])]["status"] == "PENDING"
    later = make_backend(study)
    assert not later.is_alive(jobs[1])
    assert later.queued_runs() == {}
    done = subprocess.run(ray.submissions[1]["entrypoint"], shell=True, capture_output=True)
    assert done.returncode == 143
    assert not jobs[1].run.log.exists()


def test_a_job_that_can_not_be_stopped_now_is_stopped_later(
    ray: FakeRay, study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    ray.set_status(job, "RUNNING")
    poll(backend)
    ray.error = (500, "no agent")
    backend.cancel(job, signal.SIGTERM)
    assert poll(backend, 0.2) == []
    assert "answers 500: no agent" in capsys.readouterr().err
    ray.error = None
    (job_exit,) = poll(backend, 5)
    assert (job_exit.code, job_exit.cause) == (143, None)


def test_the_command_that_cancels_all_jobs(ray: FakeRay, study: Path, tmp_path: Path) -> None:
    backend, jobs = make_backend(study), make_jobs(study, 2)
    assert backend.how_to_cancel() == ""
    submit(backend, jobs)
    command = tmp_path / "ray"
    command.write_text(f'#!/bin/sh\n[ "$2" = list ] && cat {tmp_path}/list || echo "$@" >> {tmp_path}/calls\n')
    command.chmod(0o755)
    ids = [ray.last_id(job) for job in jobs]
    listed = [f"submission_id='{key}', message='of {ids[0]}'" for key in (*ids, "litlab-00000000-0-1")]
    (tmp_path / "list").write_text("\n".join(listed))
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(backend.how_to_cancel(), shell=True, check=True, env={"PATH": path})
    assert (tmp_path / "calls").read_text().splitlines() == [
        f"job stop --no-wait --address={ray.address} {key}" for key in ids
    ]


def test_detaching_submits_what_was_handed_over(ray: FakeRay, study: Path) -> None:
    backend, jobs = make_backend(study), make_jobs(study, 2)
    for job in jobs:
        assert not backend.is_alive(job)
        backend.submit(job)
    backend.close()
    assert len(ray.submissions) == 2
    assert all(job["status"] == "PENDING" for job in ray.jobs.values())


def test_a_node_that_does_not_see_the_run(ray: FakeRay, study: Path) -> None:
    backend, (job,) = make_backend(study), make_jobs(study, 1)
    submit(backend, [job])
    job.run.path.rename(study / "away")
    entrypoint = ray.submissions[0]["entrypoint"]
    done = subprocess.run(entrypoint, shell=True, capture_output=True, text=True)
    assert done.returncode == 1
    seen = f"{job.run.path}, {Path.cwd()} and {sys.executable}"
    assert done.stdout == f"litlab: this node does not see all of {seen}: share the file system with it\n"
    (study / "away").rename(job.run.path)
    ray.set_status(job, "FAILED", driver_exit_code=1, message=f"Job entrypoint command failed:\n{done.stdout}")
    (job_exit,) = poll(backend, 5)
    assert determine_outcome(job_exit).log[-1] == done.stdout.strip()


def test_lines_of_setup_come_before_the_worker(ray: FakeRay, study: Path, tmp_path: Path) -> None:
    (job,) = make_jobs(study, 1)
    submit(make_backend(study, setup=[f"echo here > {tmp_path}/setup", "exit 4"]), [job])
    assert subprocess.run(ray.submissions[0]["entrypoint"], shell=True).returncode == 4
    assert (tmp_path / "setup").read_text() == "here\n"


@pytest.mark.parametrize(("num_gpus", "visible"), [("0", ""), ("1", "5")])
def test_the_worker_inherits_no_ranks_and_no_parent(
    study: Path, monkeypatch: pytest.MonkeyPatch, num_gpus: str, visible: str
) -> None:
    (job,) = make_jobs(study, 1)
    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.setattr(os, "dup2", lambda *arguments: None)
    monkeypatch.setattr(sys, "argv", ["", str(job.run.path), str(study / "marker"), num_gpus])
    for name in ("RANK", "MASTER_PORT", "SLURM_JOB_ID", "LITLAB_PARENT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        ray_job.main()
    finally:
        blocked = signal.pthread_sigmask(signal.SIG_SETMASK, before)
    ((program, command, environment),) = calls
    assert command == [program, "-P", "-m", "litlab.training.worker", str(job.run.path)]
    assert not environment.keys() & {"RANK", "MASTER_PORT", "SLURM_JOB_ID", "LITLAB_PARENT"}
    assert environment["CUDA_VISIBLE_DEVICES"] == visible
    assert signal.SIGTERM in blocked  # until the worker handles it


def test_the_output_of_a_worker_is_its_log(ray: FakeRay, study: Path) -> None:
    (job,) = make_jobs(study, 1)
    submit(make_backend(study), [job])
    assert subprocess.run(ray.submissions[0]["entrypoint"], shell=True).returncode == 1
    assert "config.yaml" in job.run.log.read_text()


def test_status_asks_ray_only_for_a_study_of_the_users_own(
    ray: FakeRay, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The settings of an untrusted one would say who gets the token."""
    path = tmp_path / "s"
    new = Study.load_own(path)
    jobs = create(new, replace(plan_of([0], tmp_path), launcher=SETTINGS), seeds(new, [0]))
    backend = make_backend(path)
    submit(backend, jobs)
    assert status.read_jobs(path)[0].state.message == "Resources"
    (path / ".signature").unlink()
    ray.requests.clear()
    assert status.read_jobs(path)[0].state.message != "Resources"
    assert ray.requests == []
    assert "the study is not signed by you" in capsys.readouterr().err
