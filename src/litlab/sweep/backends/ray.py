"""Ray backend: submits each job of a study by the Jobs API, and follows them by listing all jobs.

A submission id is litlab-TOKEN-JOB-TRY: TOKEN is of the study, in `.ray/prefix`, and JOB is the number of the job. TRY
is random, since Ray takes no id twice. So any later command finds the jobs by their ids, whatever happened to the
command that submitted them, and a request without an answer is not repeated if the id is there.
"""

import math
import os
import re
import secrets
import shlex
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from litlab.config.schema import Ray
from litlab.errors import InUseError, UserError
from litlab.process.signals import exit_code
from litlab.runs.files import write_text
from litlab.runs.lock import is_locked
from litlab.runs.result import is_completed
from litlab.sweep.backends.base import Config, ExitCause, Job, JobExit
from litlab.sweep.backends.queue import LATE_SECONDS, Resources, TemporaryErrors
from litlab.sweep.backends.ray_api import RayClient, RayError, RayJob

FOLDER = ".ray"  # in the directory of the study
MIN_VERSION = (2, 10)  # that reports the exit code of a job
SUBMIT_SECONDS = 1.0  # of one `poll`, after which the other jobs wait for the next one
STOP_SECONDS = 60.0  # for Ray to report the end of a job that has ended
_REASON = "Resources"  # Ray gives no other
_START_TIMEOUT = "JOB_SUPERVISOR_ACTOR_START_TIMEOUT"  # Ray gives a job up that has waited for 15 minutes
_SUPERVISOR_DIED = "JOB_SUPERVISOR_ACTOR_DIED"
_OUT_OF_MEMORY = re.compile(r"(?i)low on memory|out of memory|\boom\b|memory pressure")
_LOST = re.compile(r"(?i)node has died|node was (terminated|preempted|drained)|failed to get job supervisor")
_SIZES = {"M": 1 << 20, "G": 1 << 30}


@dataclass
class _Submission:
    """A job in the queue.

    Attributes:
        id: Its submission id.
        marker: File that says that it was withdrawn.
        is_pending: True if it waits, as far as is known.
        running_since: Time by the monotonic clock, since when it was seen running.
        ended_since: Time by the monotonic clock, since when it is not seen alive.
        last_signal: Signal that was requested.
    """

    job: Job
    id: str
    marker: Path
    is_pending: bool = True
    running_since: float | None = None
    ended_since: float | None = None
    last_signal: int | None = None
    submitted: float = field(default_factory=time.monotonic)


class RayBackend:
    """Backend that submits jobs to a Ray cluster, which sees the file system of this machine.

    Args:
        settings: Keys of `hydra.launcher`.
        folder: Directory of the study, or of a single run; the backend keeps its files in `.ray` there.

    Raises:
        UserError: If the address is not one of a dashboard.
    """

    outlives_command = True

    def __init__(self, settings: Ray, folder: Path) -> None:
        self.max_parallel, self.detaches = settings.jobs, settings.detach
        self.grace_seconds = settings.grace + STOP_SECONDS
        self._settings = settings
        self._folder = folder.absolute() / FOLDER
        self._client = RayClient(settings.address)
        self._errors = TemporaryErrors()
        self._new: list[Job] = []
        self._attempts: dict[int, str] = {}  # number of a new job -> id of a submission that may have succeeded
        self._submissions: dict[int, _Submission] = {}
        self._earlier: dict[int, tuple[str, RayJob]] | None = None  # alive, of earlier commands, by number of the job
        self._to_cancel: dict[int, int] = {}  # number of the job -> signal
        self._exits: list[JobExit] = []
        self._polled = -float("inf")

    def start(self) -> None:
        """Do nothing: Ray runs."""

    def check(self, configs: Sequence[Config], *, dry_run: bool = False) -> None:
        """Check that the cluster answers, and has nodes for the jobs; see `Backend.check`. Nothing is submitted."""
        try:
            version, nodes = self._client.version(), self._client.nodes()
            is_autoscaled = self._client.is_autoscaled()
        except RayError as error:
            raise UserError(f"hydra/launcher=ray: {error}") from error
        name = f"Ray {version} at {self._client.address}"
        numbers = tuple(map(int, re.findall(r"\d+", version)[:2]))
        if numbers < MIN_VERSION:
            raise UserError(f"{name}: expected Ray {'.'.join(map(str, MIN_VERSION))} or newer")
        problems: dict[str, None] = {}
        for config in configs:
            try:
                demand = self._demand(config)
            except UserError as error:
                problems[str(error)] = None
                continue
            if not is_autoscaled and not any(_fits(demand, node) for node in nodes):
                have = "; ".join(dict.fromkeys(_format({key: node.get(key, 0) for key in demand}) for node in nodes))
                problems[f"{name}: no node has {_format(demand)} for a job; they have {have or 'nothing'}"] = None
        if problems:
            raise UserError("\n".join(problems))
        total = {key: sum(node.get(key, 0) for node in nodes) for key in ("CPU", "GPU")}
        print(
            f"{name}: {_format(total)} on {len(nodes)} node{'s' * (len(nodes) != 1)}, all of which have to see "
            f"{self._folder.parent}",
            flush=True,
        )

    def threads(self, config: Config, num_jobs: int) -> int | None:
        """Return the cores of a process; see `Backend.threads`."""
        return int(config["threads"] or self._settings.cpus)

    def has_capacity(self, config: Config) -> bool:
        """Return True while fewer than `jobs` jobs are handed over: Ray itself limits only resources."""
        return self._settings.jobs is None or len(self._new) + len(self._submissions) < self._settings.jobs

    def submit(self, job: Job) -> None:
        """Hand over a job; the next `poll` submits it."""
        self._new.append(job)

    def is_alive(self, job: Job) -> bool:
        """Return True if the job is queued or runs; asks Ray once for all that earlier commands submitted."""
        if self._earlier is None:
            self._earlier = self._find_earlier()
        return job.number in self._submissions or job.number in self._earlier

    def attach(self, job: Job) -> None:
        """Watch a job that an earlier command has submitted."""
        assert self._earlier is not None
        if job.number not in self._submissions:
            self._watch(job, *self._earlier.pop(job.number))

    def queued(self) -> dict[int, str]:
        """Return the reason why it waits for each job that is not running; empty if it was not submitted yet."""
        waiting = {number: _REASON for number, submission in self._submissions.items() if submission.is_pending}
        return {job.number: "" for job in self._new} | waiting

    def queued_runs(self) -> dict[Path, str]:
        """Return the runs of the study that wait in the queue; see `Backend.queued_runs`."""
        study = self._folder.parent
        return {study / job.run: _REASON for _, job in self._find_earlier().values() if job.status == "PENDING"}

    def poll(self, timeout: float) -> list[JobExit]:
        """Submit and cancel jobs, list them if it is time, and return those that have ended."""
        self._submit_jobs(time.monotonic() + SUBMIT_SECONDS)
        self._cancel_jobs()
        due = self._polled + self._settings.poll
        time.sleep(max(0.0, min(timeout, due - time.monotonic())))
        if self._submissions and time.monotonic() >= due:
            self._polled = time.monotonic()
            try:
                listed = self._list_jobs()
            except RayError as error:  # also one that stays, such as a token that has changed: the jobs go on
                self._errors.print(error)
            else:
                self._update(listed)
        exits, self._exits = self._exits, []
        return exits

    def cancel(self, job: Job, signum: int) -> None:
        """Ask a job to save and stop; Ray kills it after `grace` seconds, so SIGKILL adds nothing."""
        if job.number in self._submissions:
            self._to_cancel[job.number] = signum
        elif job in self._new:
            self._new.remove(job)
            if (submission_id := self._attempts.pop(job.number, None)) is None:
                self._exits.append(JobExit(job, exit_code(signal.SIGTERM), 0.0))
            else:  # it may be there
                self._submissions[job.number] = _Submission(job, submission_id, self._marker(submission_id))
                self._to_cancel[job.number] = signum

    def pause(self) -> None:
        """Do nothing: jobs of a cluster go on while the command is paused."""

    def resume(self) -> None:
        """Do nothing; see `pause`."""

    def close(self) -> None:
        """Detach: submit and cancel what is still to be; jobs in the queue go on."""
        self._submit_jobs(float("inf"))
        self._cancel_jobs()
        self._submissions.clear()

    def how_to_cancel(self) -> str:
        """Return the command that stops all jobs of this study; it needs Ray on this machine."""
        if not (self._submissions or self._new):
            return ""
        address = shlex.quote(f"--address={self._client.address}")
        return (
            f"ray job list {address} | grep -o '{self._prefix()}-[0-9]*-[0-9a-f]*' | sort -u | "
            f"xargs -n 1 ray job stop --no-wait {address}"
        )

    def _demand(self, config: Config) -> dict[str, float]:
        """Return the resources of a job by Ray's names."""
        settings = self._settings
        resources = Resources.of(config, cpus=settings.cpus, gpus=settings.gpus)
        if resources.num_nodes > 1:
            raise UserError(
                f"trainer.num_nodes={resources.num_nodes}: expected 1 with hydra/launcher=ray, which runs a job on one "
                "node; hydra/launcher=slurm and torchrun train on several"
            )
        demand = {"CPU": float(resources.num_ranks * resources.cpus), "GPU": float(resources.gpus)}
        if settings.mem is not None:
            demand["memory"] = float(settings.mem[:-1]) * _SIZES[settings.mem[-1]]
        return {name: number for name, number in (demand | settings.resources).items() if number or name != "GPU"}

    def _prefix(self) -> str:
        """Return the prefix of the submission ids of this study, which is made when it is first needed."""
        file = self._folder / "prefix"
        try:
            prefix = file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            prefix = f"litlab-{secrets.token_hex(4)}"
            self._folder.mkdir(exist_ok=True)
            write_text(file, prefix)
        if not re.fullmatch("litlab-[0-9a-f]{8}", prefix):
            raise UserError(f"{file} is damaged: expected litlab- and 8 hexadecimal digits")
        return prefix

    def _marker(self, submission_id: str) -> Path:
        return self._folder / f"{submission_id}.withdrawn"

    def _list_jobs(self) -> dict[str, RayJob]:
        """Return the jobs of this study that Ray knows, by submission id."""
        if not (self._folder / "prefix").exists():
            return {}
        pattern = re.compile(rf"{self._prefix()}-\d+-[0-9a-f]+")
        return {key: job for key, job in self._client.jobs().items() if pattern.fullmatch(key)}

    def _find_earlier(self) -> dict[int, tuple[str, RayJob]]:
        """Find the jobs of this study that run or will run, by number.

        Raises:
            UserError: If Ray does not answer.
        """
        try:
            jobs = self._list_jobs()
        except RayError as error:
            raise UserError(f"the jobs of Ray can't be listed: {error}") from error
        return {
            int(key.split("-")[2]): (key, job)
            for key, job in jobs.items()
            if job.is_alive and not (job.status == "PENDING" and self._marker(key).exists())
        }

    def _watch(self, job: Job, submission_id: str, listed: RayJob | None = None) -> None:
        submission = _Submission(job, submission_id, self._marker(submission_id))
        if listed is not None and listed.status == "RUNNING":
            submission.is_pending, submission.running_since = False, time.monotonic()
        self._submissions[job.number] = submission

    def _submit_jobs(self, until: float) -> None:
        """Submit jobs that were handed over, until a time by the monotonic clock or an error of Ray."""
        while self._new and time.monotonic() < until:
            before = len(self._new)
            with self._errors.printed():
                self._submit(self._new[0])
                del self._new[0]
            if len(self._new) == before:
                return

    def _submit(self, job: Job) -> None:
        """Submit a job, unless an earlier request that seemed to fail has done so."""
        attempted = self._attempts.get(job.number)
        if attempted is not None and (listed := self._list_jobs().get(attempted)) is not None:
            self._watch(job, self._attempts.pop(job.number), listed)
            return
        submission_id = f"{self._prefix()}-{job.number}-{secrets.token_hex(3)}"
        self._attempts[job.number] = submission_id
        try:
            self._client.submit(submission_id, self._request(job, submission_id))
        except RayError as error:
            if not error.is_temporary:
                del self._attempts[job.number]
            raise
        self._watch(job, self._attempts.pop(job.number))

    def _request(self, job: Job, submission_id: str) -> dict[str, Any]:
        """Return what Ray gets to know of a job: no variables of this process, since all users of Ray see them."""
        demand = self._demand(job.config)
        run, python, folder = str(job.run.path.absolute()), sys.executable, str(Path.cwd())
        num_gpus = demand.pop("GPU", 0.0)
        resources = {"entrypoint_num_cpus": demand.pop("CPU"), "entrypoint_num_gpus": num_gpus}
        if (memory := demand.pop("memory", None)) is not None:
            resources["entrypoint_memory"] = int(memory)
        program = [python, "-P", "-m", "litlab.sweep.backends.ray_job", run, str(self._marker(submission_id))]
        blind = f"litlab: this node does not see all of {run}, {folder} and {python}: share the file system with it"
        lines = [
            f"test -d {shlex.quote(run)} && test -x {shlex.quote(python)} && cd {shlex.quote(folder)} || "
            f"{{ echo {shlex.quote(blind)}; exit 1; }}",
            *self._settings.setup,
            f"exec {shlex.join([*program, str(math.ceil(num_gpus))])}",
        ]
        return {
            "entrypoint": "\n".join(lines),
            # Relative to the study, which the host of a later command may have mounted elsewhere.
            "metadata": {"run": os.path.relpath(run, self._folder.parent)},
            "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(self._settings.grace)}},
            "entrypoint_resources": demand or None,
            **resources,
        }

    def _update(self, listed: Mapping[str, RayJob]) -> None:
        now = time.monotonic()
        for number, submission in list(self._submissions.items()):
            job = listed.get(submission.id)
            if job is not None and job.is_alive and not _is_withdrawn(submission, job):
                submission.is_pending, submission.ended_since = job.status == "PENDING", None
                if not submission.is_pending:
                    submission.running_since = submission.running_since or now
                continue
            if job is not None and job.error_type == _START_TIMEOUT and submission.last_signal is None:
                del self._submissions[number]
                self._new.append(submission.job)
                continue
            submission.ended_since = submission.ended_since or now
            is_late = now - submission.ended_since > LATE_SECONDS
            if (job_exit := self._end_of(submission, job, is_late=is_late)) is not None:
                del self._submissions[number]
                self._to_cancel.pop(number, None)
                self._exits.append(job_exit)

    def _end_of(self, submission: _Submission, job: RayJob | None, *, is_late: bool) -> JobExit | None:
        """Return the end of a job; None while its files may still come, or a worker that Ray has lost may be alive.

        Such a worker, on a node that is cut off, keeps its run by its heartbeat.
        """
        run = submission.job.run
        code, cause = _read_end(submission, job)
        if is_locked(run.path) and (cause is ExitCause.LOST or not is_late):
            return None
        if code == 0 and not is_late and not is_completed(run):
            return None
        if job is not None and code == 1 and not (run.log.exists() and run.log.stat().st_size):
            run.log.write_text(job.message, encoding="utf-8")  # where a reader looks first
        since = submission.running_since
        return JobExit(submission.job, code, 0.0 if since is None else time.monotonic() - since, cause)

    def _cancel_jobs(self) -> None:
        """Cancel jobs; those that Ray can't be asked to stop now, the next time."""
        for number, signum in list(self._to_cancel.items()):
            if (submission := self._submissions.get(number)) is None:
                del self._to_cancel[number]
                continue
            submission.marker.touch()  # before the request: see ray_job.py
            submission.last_signal = signum
            try:
                self._client.stop(submission.id)
            except RayError as error:
                if error.status != 404:
                    self._errors.print(error)
                    return
            del self._to_cancel[number]


def _is_withdrawn(submission: _Submission, job: RayJob) -> bool:
    """Tell whether a job will do nothing when it starts: Ray lists it as PENDING until then."""
    return job.status == "PENDING" and submission.last_signal is not None


def _read_end(submission: _Submission, job: RayJob | None) -> tuple[int, ExitCause | None]:
    """Return the exit code of a job that is not alive, and the cause of its end."""
    stopped = exit_code(signal.SIGTERM)
    if job is None:  # the head was started anew
        return -signal.SIGKILL, ExitCause.LOST
    if job.is_alive or job.status == "STOPPED":
        is_ours = submission.last_signal is not None or submission.marker.exists()
        return stopped, None if is_ours else ExitCause.CANCELLED
    if job.exit_code is not None:
        return job.exit_code, ExitCause.LOST if job.exit_code == InUseError.exit_code else None
    if job.status == "SUCCEEDED":
        return 0, None
    if _OUT_OF_MEMORY.search(job.message):
        return -signal.SIGKILL, ExitCause.OUT_OF_MEMORY
    if _LOST.search(job.message):
        return -signal.SIGKILL, ExitCause.LOST
    return (-signal.SIGKILL if job.error_type == _SUPERVISOR_DIED else 1), None


def _fits(demand: Mapping[str, float], node: Mapping[str, float]) -> bool:
    return all(node.get(name, 0) >= number for name, number in demand.items())


def _format(resources: Mapping[str, float]) -> str:
    """Format resources: `2 CPUs, 1 GPU, 16 GiB of memory`."""
    texts = []
    for name, number in resources.items():
        if name == "memory":
            texts.append(f"{number / _SIZES['G']:.3g} GiB of memory")
        else:
            texts.append(f"{number:g} {name}{'s' * (number != 1 and name in ('CPU', 'GPU'))}")
    return ", ".join(texts)
