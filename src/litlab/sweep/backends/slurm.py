"""SLURM backend: submits the jobs of a study as arrays with sbatch, and follows them with squeue alone.

An array is named litlab-TOKEN. TOKEN.list, written before sbatch is called, says which element is which run directory.
So any later command finds the jobs in the queue by name, whatever happened to the command that submitted them. The list
is locked while sbatch runs, also when the command that called it has been killed.
"""

import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from litlab.config.schema import Slurm
from litlab.errors import InUseError, UserError
from litlab.process.controller import environment_without_ranks
from litlab.process.signals import exit_code
from litlab.runs.lock import file_lock, is_locked
from litlab.sweep.backends.base import Config, ExitCause, Job, JobExit
from litlab.sweep.backends.queue import LATE_SECONDS, QueueError, Resources, TemporaryErrors
from litlab.sweep.backends.slurm_job import ElementFiles, read_list, write_list

FOLDER = ".slurm"  # in the directory of the study
PREFIX = "litlab-"
MIN_JOB_AGE = 300.0  # seconds for which SLURM remembers a job that has ended, by default
RESTART_SECONDS = 3.0  # before a requeued job starts: a node refuses one that it has killed within the same second
CALL_SECONDS = 60.0  # for a command of SLURM
PATIENCE_SECONDS = 30.0  # with a SLURM that does not answer, where nothing can be done without its answer
_PENDING = frozenset(
    ("PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "CONFIGURING", "RESV_DEL_HOLD")
)
_RUNNING = frozenset(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"))
_LOST = frozenset(("NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "REVOKED"))
_STOPPED = tuple(map(exit_code, (signal.SIGINT, signal.SIGTERM)))
_GONE = "GONE"  # not in the queue anymore: forgotten after MinJobAge, or lost by a slurmctld that was killed
_TEMPORARY = re.compile("(?i)unable to contact|timed out|zero bytes|connection refused|communication|temporarily")


class SlurmError(QueueError):
    """A command of SLURM that failed."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.is_temporary = _TEMPORARY.search(message) is not None


@dataclass
class _Array:
    """An array of jobs that need the same resources, from the time when its list is to be written."""

    token: str
    options: tuple[str, ...]
    jobs: list[Job]
    limit: int | None  # jobs that run at once
    was_attempted: bool = False  # sbatch was called, and did not say that it failed for good


@dataclass
class _Element:
    """A job in the queue."""

    job: Job
    files: ElementFiles
    state: str = "PENDING"
    reason: str = ""
    array_id: str = ""
    pending_since: float | None = None  # by the monotonic clock
    running_since: float | None = None
    seen_alive: float = field(default_factory=time.monotonic)  # when it was submitted, or squeue said so last
    left_queue: float | None = None  # by the monotonic clock, since when no state says that it will run or runs
    last_signal: int | None = None  # that was requested

    @property
    def key(self) -> tuple[str, int]:
        """Key in `Queue`."""
        return self.files.token, self.files.index

    def apply(self, line: "_QueueLine") -> None:
        """Take over what squeue says of it."""
        self.state, self.reason, self.array_id = line.state, line.reason, line.array_id
        now = time.monotonic()
        if line.state in _PENDING:
            self.pending_since, self.running_since = self.pending_since or now, None
        elif line.state in _RUNNING:
            self.pending_since, self.running_since = None, self.running_since or now


@dataclass(frozen=True)
class _QueueLine:
    array_id: str
    state: str
    reason: str

    @property
    def is_alive(self) -> bool:
        """True if the element runs, or will."""
        return self.state in _PENDING | _RUNNING


Queue = dict[tuple[str, int], _QueueLine]  # token and index -> what squeue says
_Call = Callable[..., str]  # command -> its output


class SlurmBackend:
    """Backend that submits jobs to SLURM.

    Args:
        settings: Keys of `hydra.launcher`.
        folder: Directory of the study, or of a single run; the backend keeps its files in `.slurm` there.
    """

    outlives_command = True
    grace_seconds = 90.0  # KillWait of the cluster, after which SLURM kills a job itself, is 30 by default

    def __init__(self, settings: Slurm, folder: Path) -> None:
        self.max_parallel, self.detaches = settings.jobs, settings.detach
        self._settings = settings
        self._folder = folder.absolute() / FOLDER
        self._new: list[Job] = []
        self._arrays: list[_Array] = []  # not known to SLURM yet
        self._elements: dict[int, _Element] = {}
        # Elements that earlier commands submitted, by run directory; None before SLURM was asked for them.
        self._earlier: dict[Path, tuple[ElementFiles, _QueueLine]] | None = None
        self._to_cancel: dict[int, int] = {}  # number of the job -> signal
        self._exits: list[JobExit] = []
        self._polled = -float("inf")
        self._max_array_size: int | None = None
        self._min_job_age = MIN_JOB_AGE
        self._errors = TemporaryErrors()

    def start(self) -> None:
        """Check that this machine has the commands of SLURM.

        Raises:
            UserError: If it has not.
        """
        missing = [name for name in ("sbatch", "squeue", "scancel", "scontrol") if shutil.which(name) is None]
        if missing:
            raise UserError(
                f"hydra/launcher=slurm: no {' and no '.join(missing)} on the PATH; run this on a login node"
            )

    def check(self, configs: Sequence[Config], *, dry_run: bool = False) -> None:
        """Let SLURM check the resources that the jobs need; see `Backend.check`. Nothing is submitted."""
        self.start()
        problems: dict[str, None] = {}
        resources: dict[tuple[str, ...], Config] = {}
        for config in configs:
            try:
                resources.setdefault(self._options(config), config)
            except UserError as error:
                problems[str(error)] = None
        for options in resources:
            try:
                self._call_patiently("sbatch", "--test-only", *options, "--wrap", "true")
            except SlurmError as error:
                problems[f"sbatch {shlex.join(options)}: {_explain(str(error))}"] = None
        if problems:
            raise UserError("\n".join(problems))

    def threads(self, config: Config, num_jobs: int) -> int | None:
        """Return the cores of a process; see `Backend.threads`."""
        return int(config["threads"] or self._settings.cpus)

    def has_capacity(self, config: Config) -> bool:
        """Return True: the queue takes any number of jobs."""
        return True

    def submit(self, job: Job) -> None:
        """Hand over a job; the next `poll` submits all that were handed over since the last one."""
        self._new.append(job)

    def is_alive(self, job: Job) -> bool:
        """Return True if the job is queued or runs; asks SLURM once for all that earlier commands submitted."""
        if self._earlier is None:
            for listed in self._lists():
                with file_lock(listed, wait=True):  # held by an sbatch that has outlived its command
                    pass
            self._earlier = self._find_earlier(self._call_patiently)
        return job.number in self._elements or job.run.path.absolute() in self._earlier

    def attach(self, job: Job) -> None:
        """Watch a job that an earlier command has submitted."""
        assert self._earlier is not None
        if job.number not in self._elements:
            files, line = self._earlier.pop(job.run.path.absolute())
            self._elements[job.number] = _Element(job, files)
            self._elements[job.number].apply(line)

    def queued(self) -> dict[int, str]:
        """Return the reason why it waits for each job that is in the queue; empty if SLURM gives none."""
        reasons = {job.number: "" for job in (*self._new, *(job for array in self._arrays for job in array.jobs))}
        for number, element in self._elements.items():
            never_ran = element.running_since is None and not element.files.num_starts()
            if element.state in _PENDING or never_ran:  # as one that was cancelled while it waited
                reasons[number] = element.reason
        return reasons

    def queued_runs(self) -> dict[Path, str]:
        """Return the runs of the study that wait in the queue; see `Backend.queued_runs`."""
        self.start()
        return {run: line.reason for run, (_, line) in self._find_earlier().items() if line.state in _PENDING}

    def poll(self, timeout: float) -> list[JobExit]:
        """Submit and cancel jobs, look at the queue if it is time, and return the jobs that have ended."""
        self._submit_arrays()
        self._cancel_jobs()
        due = self._polled + self._settings.poll
        time.sleep(max(0.0, min(timeout, due - time.monotonic())))
        if self._elements and time.monotonic() >= due:
            self._polled = time.monotonic()
            with self._errors.printed():
                self._update(self._read_queue(element.files.token for element in self._elements.values()))
        exits, self._exits = self._exits, []
        return exits

    def cancel(self, job: Job, signum: int) -> None:
        """Ask a job to save and stop, or with SIGKILL end it; see `Backend.cancel`."""
        if job in self._new:
            self._new.remove(job)
            self._exits.append(JobExit(job, exit_code(signal.SIGTERM), 0.0))
        else:
            self._to_cancel[job.number] = signum

    def pause(self) -> None:
        """Do nothing: jobs of a cluster go on while the command is paused."""

    def resume(self) -> None:
        """Do nothing; see `pause`."""

    def close(self) -> None:
        """Detach: submit and cancel what is still to be; jobs in the queue go on."""
        self._submit_arrays()
        self._cancel_jobs()
        self._elements.clear()

    def how_to_cancel(self) -> str:
        """Return the command that cancels all jobs of this study."""
        tokens = dict.fromkeys(element.files.token for element in self._elements.values())
        return "scancel --name=" + ",".join(PREFIX + token for token in tokens) if tokens else ""

    def _options(self, config: Config) -> tuple[str, ...]:
        """Return the options of sbatch for a job with this config."""
        settings = self._settings
        need = Resources.of(config, cpus=settings.cpus, gpus=settings.gpus)
        if need.num_nodes > 1:  # srun starts the ranks; on one node the worker does
            options = [
                f"--nodes={need.num_nodes}",
                f"--ntasks-per-node={need.num_ranks}",
                f"--cpus-per-task={need.cpus}",
            ]
        else:
            options = ["--nodes=1", "--ntasks=1", f"--cpus-per-task={need.num_ranks * need.cpus}"]
        if need.gpus:
            options.append(f"--gres={settings.gres}:{need.gpus}")
        for name in ("partition", "account", "qos", "mem", "constraint", "exclude"):
            if (value := getattr(settings, name)) is not None:
                options.append(f"--{name}={value}")
        if settings.time is not None:
            options += [f"--time={settings.time}", f"--signal=B:USR1@{settings.warning}"]
        return (*options, "--requeue", *settings.options)

    def _submit_arrays(self) -> None:
        """Submit all jobs that were handed over; those that need the same resources in one array."""
        if not self._new and not self._arrays:
            return
        if self._max_array_size is None:
            with self._errors.printed():
                limits = dict(
                    re.findall(r"(MaxArraySize|MinJobAge)\s*=\s*(\d+)", self._call("scontrol", "show", "config"))
                )
                self._max_array_size = max(1, int(limits.get("MaxArraySize", 1001)) - 1)
                self._min_job_age = float(limits.get("MinJobAge", MIN_JOB_AGE)) or float("inf")  # 0: for ever
        if self._max_array_size is None:
            return
        groups: dict[tuple[str, ...], list[Job]] = {}
        for job in self._new:
            groups.setdefault(self._options(job.config), []).append(job)
        num_new = len(self._new)
        for options, jobs in groups.items():
            for start in range(0, len(jobs), self._max_array_size):
                part = jobs[start : start + self._max_array_size]
                limit = self._settings.jobs
                if limit is not None:  # arrays that are submitted together share it
                    limit = max(1, limit * len(part) // num_new)
                self._arrays.append(_Array(secrets.token_hex(4), options, part, limit))
        self._new.clear()
        for array in list(self._arrays):
            with self._errors.printed():
                self._submit(array)
                self._arrays.remove(array)

    def _submit(self, array: _Array) -> None:
        """Call sbatch, unless an earlier call that seemed to fail has submitted the array."""
        array_id = self._find_array(array.token) if array.was_attempted else None
        if array_id is None:
            array_id = self._call_sbatch(array)
        for index, job in enumerate(array.jobs):
            files = ElementFiles(self._folder, array.token, index)
            self._elements[job.number] = _Element(job, files, array_id=array_id)
        self._polled = time.monotonic()

    def _call_sbatch(self, array: _Array) -> str:
        """Write the list and the script of an array, submit it and return its id."""
        self._folder.mkdir(exist_ok=True)
        listed = write_list(self._folder, array.token, [job.run.path for job in array.jobs])
        limit = "" if array.limit is None else f"%{array.limit}"
        program = shlex.join([sys.executable, "-P", "-m", "litlab.sweep.backends.slurm_job", str(listed)])
        script = "\n".join(["#!/bin/sh", *self._settings.setup, f"exec {program}", ""])
        with file_lock(listed, wait=True) as lock:
            array.was_attempted = True
            return self._call(
                "sbatch", "--parsable", f"--job-name={PREFIX}{array.token}",
                f"--array=0-{len(array.jobs) - 1}{limit}",
                f"--output={self._folder / array.token}.%a.out", "--open-mode=append", *array.options,
                stdin=script, pass_fd=lock.fileno(),
            ).strip().partition(";")[0]  # fmt: skip

    def _find_array(self, token: str) -> str | None:
        return next((line.array_id for (name, _), line in self._read_queue([token]).items() if name == token), None)

    def _find_earlier(self, call: _Call | None = None) -> dict[Path, tuple[ElementFiles, _QueueLine]]:
        """Find the jobs of this study that earlier commands have submitted; `call` calls squeue."""
        lists = self._lists()
        if not lists:
            return {}
        try:
            queue = self._read_queue((listed.stem for listed in lists), call)
        except SlurmError as error:
            raise UserError(f"the queue of SLURM can't be read: {error}") from error
        runs = {listed.stem: read_list(listed) for listed in lists}
        return {
            runs[token][index]: (ElementFiles(self._folder, token, index), line)
            for (token, index), line in queue.items()
            if line.is_alive and index < len(runs[token])
        }

    def _lists(self) -> list[Path]:
        return [path for path in self._folder.glob("*.list") if re.fullmatch("[0-9a-f]{8}", path.stem)]

    def _read_queue(self, tokens: Iterable[str], call: _Call | None = None) -> Queue:
        """Ask SLURM for the elements of some arrays; `call` calls squeue."""
        names = ",".join(PREFIX + token for token in dict.fromkeys(tokens))
        output = (call or self._call)(
            "squeue", "--me", "--noheader", "--array", "--states=all", f"--name={names}", "--format=%F|%K|%j|%T|%r"
        )
        queue: Queue = {}
        for line in output.splitlines():
            array_id, index, name, state, reason = line.split("|", 4)
            if index.isdigit():
                key = (name.removeprefix(PREFIX), int(index))
                entry = _QueueLine(array_id, state, "" if reason == "None" else reason)
                if key not in queue or not queue[key].is_alive:
                    queue[key] = entry
        return queue

    def _update(self, queue: Queue) -> None:
        now = time.monotonic()
        for number, element in list(self._elements.items()):
            line = queue.get(element.key, _QueueLine(element.array_id, _GONE, ""))
            element.apply(line)
            if line.is_alive:
                element.left_queue, element.seen_alive = None, now
                waited = 0.0 if element.pending_since is None else now - element.pending_since
                if line.reason == "BeginTime" and waited > RESTART_SECONDS and element.files.take_requeue():
                    self._start_now(element)
                continue
            element.left_queue = element.left_queue or now
            if (job_exit := self._end_of(element, is_late=now - element.left_queue > LATE_SECONDS)) is not None:
                del self._elements[number]
                self._to_cancel.pop(number, None)
                self._exits.append(job_exit)

    def _start_now(self, element: _Element) -> None:
        """Let a job start that saved and returned to the queue at its time limit: SLURM would wait for two minutes.

        It does so after a node failure, too, where a job that starts at once is killed by the node that returns.
        """
        try:
            self._call("scontrol", "update", f"JobId={element.array_id}_{element.files.index}", "StartTime=now")
        except SlurmError as error:
            self._errors.print(error)

    def _end_of(self, element: _Element, *, is_late: bool) -> JobExit | None:
        """Return the end of a job that has left the queue; None while its files may still come.

        A state alone ends no job: an element that is being requeued was once seen as COMPLETED.
        """
        code = element.files.exit_code()
        was_stopped = code in _STOPPED and element.last_signal is None  # to be requeued, or cancelled by somebody
        if not is_late and (code is None or was_stopped or is_locked(element.job.run.path)):
            return None
        seconds = 0.0 if element.running_since is None else time.monotonic() - element.running_since
        cause = self._cause(element, code)
        if code is None:
            is_cancelled = cause is ExitCause.CANCELLED or element.last_signal == signal.SIGTERM
            code = exit_code(signal.SIGTERM) if is_cancelled else -signal.SIGKILL
            if element.state == "FAILED":
                code = 1
                _copy_output(element)  # the program could not start
        return JobExit(element.job, _as_signal(code), seconds, cause)

    def _cause(self, element: _Element, code: int | None) -> ExitCause | None:
        if element.state == "TIMEOUT":
            return ExitCause.TIMED_OUT
        if element.state == "OUT_OF_MEMORY":
            return ExitCause.OUT_OF_MEMORY
        if element.state in _LOST or code == InUseError.exit_code:  # it could not return to the queue by itself
            return ExitCause.LOST
        if element.last_signal is not None:
            return None
        seconds = (element.left_queue or time.monotonic()) - element.seen_alive
        is_forgotten = element.state == _GONE and seconds < self._min_job_age
        if is_forgotten and (code is None or code in _STOPPED):
            return ExitCause.LOST  # by a slurmctld that was killed: it would remember one that was cancelled
        if element.state == "CANCELLED" or code in _STOPPED:
            return ExitCause.CANCELLED
        if code is None and element.state == _GONE:  # cancelled before it started, long ago, or its node is lost
            return ExitCause.LOST if element.files.num_starts() else ExitCause.CANCELLED
        return None

    def _cancel_jobs(self) -> None:
        """Cancel jobs, in one call for each signal; those that SLURM does not know yet are cancelled later."""
        ids: dict[int, list[str]] = {}
        for number in self._to_cancel.keys() & self._elements.keys():
            element, signum = self._elements[number], self._to_cancel.pop(number)
            element.last_signal = signum
            ids.setdefault(signum, []).append(f"{element.array_id}_{element.files.index}")
        for signum, elements in ids.items():
            try:
                if signum == signal.SIGKILL:
                    self._call("scancel", "--full", "--signal=KILL", *elements)
                self._call("scancel", *elements)  # SIGTERM to all, SIGKILL after KillWait; removes it from the queue
            except SlurmError as error:
                self._errors.print(error)

    def _call_patiently(self, *command: str) -> str:
        """Call a command of SLURM as `_call`, again while SLURM does not answer: it may be started again just now.

        Raises:
            SlurmError: If it fails, or does not answer for too long.
        """
        until = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return self._call(*command)
            except SlurmError as error:
                if not error.is_temporary or time.monotonic() > until:
                    raise
                self._errors.print(error)
                time.sleep(1.0)

    def _call(self, *command: str, stdin: str = "", pass_fd: int | None = None) -> str:
        """Call a command of SLURM in a session of its own, so that Ctrl-C does not reach it; return its output.

        Raises:
            SlurmError: If it fails.
        """
        # A job inherits the environment of sbatch: without ranks, and not as a child of this process.
        environment = environment_without_ranks()
        if config := os.environ.get("SLURM_CONF"):
            environment["SLURM_CONF"] = config
        try:
            done = subprocess.run(
                command,
                input=stdin,
                capture_output=True,
                text=True,
                timeout=CALL_SECONDS,
                start_new_session=True,
                env=environment,
                pass_fds=() if pass_fd is None else (pass_fd,),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SlurmError(f"{command[0]}: {error}") from error
        if done.returncode:
            raise SlurmError(
                "; ".join(done.stderr.strip().splitlines()) or f"{command[0]} ended with {done.returncode}"
            )
        return done.stdout


def _as_signal(code: int) -> int:
    """Return the negative number of the signal that ended a worker, which a shell and srun report as 128 and more."""
    if code in _STOPPED:  # after it has saved
        return code
    return 128 - code if code - 128 in set(signal.Signals) else code


def _explain(error: str) -> str:
    """Return an error of sbatch without what SLURM puts before it."""
    return error.removeprefix("sbatch: error: ").removeprefix("allocation failure: ")


def _copy_output(element: _Element) -> None:
    """Copy the output of a program that could not start its worker to run.log, where a reader looks first."""
    if not element.job.run.log.exists() and element.files.output.exists():
        shutil.copyfile(element.files.output, element.job.run.log)
