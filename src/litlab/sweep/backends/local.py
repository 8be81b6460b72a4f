"""Local pool: runs jobs as forked workers on the devices of this machine."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import inf
from pathlib import Path

from litlab.errors import UserError
from litlab.process.controller import worker_environment
from litlab.process.device_leases import DeviceLeases
from litlab.process.fork_server import POLL, ForkRequest, ForkServer, Orphan
from litlab.process.signals import PARENT_VARIABLE, exit_code
from litlab.runs.processor import num_cores
from litlab.sweep.backends.base import Config, ExitCause, Job, JobExit
from litlab.sweep.backends.device_allocator import Allocation, DeviceAllocator, Machine
from litlab.sweep.backends.waiting_jobs import read_waiting_jobs, write_waiting_jobs

GRACE_SECONDS = 10.0  # to save in, for a job that takes too long
OOM_SECONDS = 3.0  # after an OOM kill, in which a killed job is taken to be its victim
VMSTAT = Path("/proc/vmstat")
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class PoolSettings:
    """Settings of the local pool.

    Attributes:
        jobs: Maximum number of jobs at once; None for as many as there are devices for.
        jobs_per_device: Maximum number of jobs that share a GPU.
        timeout: Seconds that a job may take; None for any.
        retries: Number of times that the scheduler starts a failed job again.
    """

    jobs: int | None
    jobs_per_device: int
    timeout: float | None
    retries: int


@dataclass
class _RunningJob:
    job: Job
    allocation: Allocation
    started: float  # by the monotonic clock, when it was submitted
    deadline: float  # by the monotonic clock, when it is asked to stop, then when it is killed
    pid: int | None = None  # of its worker, once the server has reported it
    timed_out: bool = False  # once it was asked to stop because it took too long
    last_signal: int | None = None
    orphan: Orphan | None = None  # its process, if the server that forked it has ended


class LocalPool:
    """Backend that forks workers from a server process, which takes seconds to start.

    Args:
        settings: Limits of the pool.
        machine: Devices to allocate; None for those of this machine.
        folder: Directory of the study; None to leave no file there.
    """

    outlives_command = False
    detaches = False
    grace_seconds = 8.0

    def __init__(self, settings: PoolSettings, machine: Machine | None = None, *, folder: Path | None = None) -> None:
        self.max_parallel = settings.jobs
        self._settings = settings
        self._machine = machine
        self._folder = folder
        self._leases: DeviceLeases | None = None
        self._running: dict[int, _RunningJob] = {}
        self._waiting: Job | None = None  # submitted, and waits for a device of another command
        self._reason = ""  # why it waits
        self._exits: list[JobExit] = []
        self._paused_at: float | None = None  # by the monotonic clock
        self._oom_monitor = OomMonitor()
        self._started_server: ForkServer | None = None
        self._num_servers = 0

    def start(self) -> None:
        """Start the server without waiting until it is ready.

        Raises:
            UserError: If it can't be started.
        """
        if self._started_server is None:
            self._started_server = ForkServer()
            self._num_servers += 1

    def check(self, configs: Sequence[Config], *, dry_run: bool = False) -> None:
        """Check that this machine has the devices for the jobs; see `Backend.check`.

        Raises:
            UserError: With a line for each thing that is missing.
        """
        devices = self._make_allocator(Machine(gpus=(), cores=num_cores())) if dry_run else self._devices
        if dry_run:  # only a pool that has started knows how many GPUs there are
            configs = [
                config | {"trainer": config["trainer"] | {"accelerator": "cpu", "devices": 1}}
                if config["trainer"]["accelerator"] != "cpu"
                else config
                for config in configs
            ]
        if problems := devices.problems(configs):
            raise UserError("\n".join(problems))

    def threads(self, config: Config, num_jobs: int) -> int | None:
        """Return the number of threads of a process of a job; see `Backend.threads`."""
        return self._devices.threads(config, num_jobs)

    def has_capacity(self, config: Config) -> bool:
        """Return True if no job waits, and the jobs of this command leave devices for one.

        A job that then needs a device of another command waits for it.
        """
        return self._waiting is None and self._devices.fits(config)

    def submit(self, job: Job) -> None:
        """Start a job; if it needs a device of another command, as soon as that is free.

        Raises:
            UserError: If the server has been killed twice.
        """
        assert self._waiting is None, "submitted without capacity"
        if self._server.has_ended:
            self._replace_server()
        self._waiting = job
        self._start_waiting()

    def is_alive(self, job: Job) -> bool:
        """Return True if this pool runs the job; none outlives the pool that started it."""
        return job.number in self._running or job == self._waiting

    def attach(self, job: Job) -> None:
        """Do nothing: every job that is alive is one of this pool's, which it watches already."""
        assert self.is_alive(job)

    def queued(self) -> dict[int, str]:
        """Return the job that waits for a device of another command, and whose it is."""
        return {} if self._waiting is None else {self._waiting.number: self._reason}

    def queued_runs(self) -> dict[Path, str]:
        """Return the runs of the study that wait for a device, by the file that its command keeps."""
        return {} if self._folder is None else read_waiting_jobs(self._folder)

    def poll(self, timeout: float) -> list[JobExit]:
        """Return the jobs that have ended, after at most `timeout` seconds; enforces their timeouts meanwhile."""
        until = time.monotonic() + timeout
        self._oom_monitor.update()
        self._start_waiting()
        while True:
            self._enforce_timeouts()
            exits, self._exits = self._exits, []
            now = time.monotonic()
            if exits or now >= until:
                return exits
            self._wait_for_report(max(0.0, min(until, self._next_deadline()) - now))

    def cancel(self, job: Job, signum: int) -> None:
        """Send a job a signal; see `Backend.cancel`."""
        if job == self._waiting:
            self._set_waiting(None)
            self._exits.append(JobExit(job, exit_code(signal.SIGTERM), 0.0))
        running = self._running.get(job.number)
        if running is None:
            return
        if signum == signal.SIGKILL and running.orphan is not None:
            running.orphan.kill()
        elif signum == signal.SIGKILL or not (running.timed_out or running.orphan):  # a second one would end its saving
            running.last_signal = signum
            self._server.signal(job.number, signum)

    def pause(self) -> None:
        """Stop all jobs until `resume`."""
        self._paused_at = time.monotonic()
        self._signal_all(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue all jobs; the pause does not count for their timeouts."""
        assert self._paused_at is not None, "not paused"
        self._signal_all(signal.SIGCONT)
        pause = time.monotonic() - self._paused_at
        for running in self._running.values():
            running.deadline += pause
        self._paused_at = None

    def how_to_cancel(self) -> str:
        """Return nothing: no job outlives the pool."""
        return ""

    def close(self) -> None:
        """End the server and all jobs within seconds; running jobs may save first."""
        self._set_waiting(None)
        if self._started_server is None:
            return
        if self._server.close(is_idle=not self._running) != 0:
            self._watch_orphans()
        orphans = [running.orphan for running in self._running.values() if running.orphan is not None]
        while orphans := [orphan for orphan in orphans if orphan.code() is None]:
            time.sleep(POLL)
        for running in self._running.values():
            self._devices.release(running.allocation)
        self._running.clear()

    @property
    def _server(self) -> ForkServer:
        self.start()
        assert self._started_server is not None
        return self._started_server

    @cached_property
    def _devices(self) -> DeviceAllocator:
        """Devices of this machine; the first call waits until the server is ready."""
        num_gpus = self._server.num_gpus()
        self._leases = DeviceLeases()
        return self._make_allocator(self._machine or _describe_machine(num_gpus))

    def _make_allocator(self, machine: Machine) -> DeviceAllocator:
        settings = self._settings
        return DeviceAllocator(
            machine, jobs=settings.jobs, jobs_per_device=settings.jobs_per_device, leases=self._leases
        )

    def _start_waiting(self) -> None:
        """Start the job that waits, if its devices are free by now."""
        if self._waiting is None:
            return
        job = self._waiting
        if self._server.has_ended:
            try:
                self._replace_server()
            except UserError:  # the next `submit` raises it
                self._set_waiting(None)
                self._exits.append(JobExit(job, -signal.SIGKILL, 0.0))
                return
        allocation = self._devices.allocate(job.config)
        if allocation is None:
            assert self._devices.waits_for, "submitted without capacity"
            self._set_waiting(job, self._devices.waits_for)
            return
        self._set_waiting(None)
        now, timeout = time.monotonic(), self._settings.timeout
        running = _RunningJob(job, allocation, now, inf if timeout is None else now + timeout)
        self._running[job.number] = running
        self._fork(running)

    def _set_waiting(self, job: Job | None, reason: str = "") -> None:
        """Change which job waits and why, here and in the file for other commands."""
        has_changed = reason != self._reason
        self._waiting, self._reason = job, reason
        if self._folder is not None and has_changed:
            write_waiting_jobs(self._folder, {} if job is None else {job.run.path: reason})

    def _fork(self, running: _RunningJob) -> None:
        run, visible = running.job.run, running.allocation.visible_devices
        environment = worker_environment() | {PARENT_VARIABLE: str(self._server.pid)}
        request = ForkRequest(
            module="litlab.training.worker",
            arguments=[str(run.path.absolute())],
            environment=environment | ({} if visible is None else {_VISIBLE: visible}),
            leases=[] if self._leases is None else self._leases.files(running.allocation.leases),
            stdout=str(run.log.absolute()),
            stderr=str(run.log.absolute()),
        )
        with suppress(BrokenPipeError):  # the server has just ended: `_wait_for_report` gives the job to the next one
            self._server.fork(running.job.number, request)

    def _signal_all(self, signum: int) -> None:
        for number in self._running:
            self._server.signal(number, signum)

    def _wait_for_report(self, timeout: float) -> None:
        """Process reports of the server; returns after the first ones, or after `timeout` seconds."""
        if any(running.orphan for running in self._running.values()):
            timeout = min(timeout, POLL)
        if self._server.has_ended:
            time.sleep(timeout)
        else:
            for report in self._server.reports(timeout):
                if "started" in report:
                    self._running[report["started"]].pid = report["pid"]
                elif "ended" in report:
                    self._finish(report["ended"], report["code"])
            if self._server.has_ended:  # somebody killed it
                self._watch_orphans()
                self._restart_unread()
        for number, running in list(self._running.items()):
            if running.orphan is not None and (code := running.orphan.code()) is not None:
                self._finish(number, code)

    def _finish(self, number: int, code: int) -> None:
        running = self._running.pop(number)
        self._devices.release(running.allocation)
        seconds, cause = time.monotonic() - running.started, None
        if running.timed_out:
            cause = ExitCause.TIMED_OUT
        elif self._oom_monitor.killed_recently():
            cause = ExitCause.OUT_OF_MEMORY
        self._exits.append(JobExit(running.job, code, seconds, cause))

    def _watch_orphans(self) -> None:
        for running in self._running.values():
            if running.pid is not None and running.orphan is None:
                running.orphan = Orphan(running.pid)
                running.deadline = inf

    def _restart_unread(self) -> None:
        """Give the next server the requests that the killed one had not read."""
        unread = {number: running for number, running in self._running.items() if running.orphan is None}
        try:
            if any(running.last_signal is None for running in unread.values()):
                self._replace_server()
        except UserError:  # the next `submit` raises it
            for number in unread:
                self._finish(number, -signal.SIGKILL)
            return
        for number, running in unread.items():
            if running.last_signal is None:
                self._fork(running)
            else:
                self._finish(number, exit_code(running.last_signal))

    def _replace_server(self) -> None:
        if self._num_servers == 2:
            raise UserError("the process that starts the jobs was killed twice (out of memory?); no more are started")
        self._server.close(is_idle=True)
        self._started_server = None
        self.start()

    def _next_deadline(self) -> float:
        if self._paused_at is not None:
            return inf
        return min((running.deadline for running in self._running.values()), default=inf)

    def _enforce_timeouts(self) -> None:
        now = time.monotonic()
        if now < self._next_deadline():
            return
        for number, running in self._running.items():
            if now >= running.deadline:
                running.last_signal = signal.SIGKILL if running.timed_out else signal.SIGTERM
                self._server.signal(number, running.last_signal)
                running.deadline = inf if running.timed_out else now + GRACE_SECONDS
                running.timed_out = True


class OomMonitor:
    """Watches for processes that the kernel of this machine kills for lack of memory; has to be updated often."""

    def __init__(self) -> None:
        self._num_kills = _num_oom_kills()
        self._last_kill = -inf

    def update(self) -> None:
        """Note new kills, with the current time."""
        num_kills = _num_oom_kills()
        if num_kills > self._num_kills:
            self._last_kill = time.monotonic()
        self._num_kills = num_kills

    def killed_recently(self) -> bool:
        """Return True if a process was killed within the last seconds."""
        self.update()
        return time.monotonic() - self._last_kill < OOM_SECONDS


def _num_oom_kills() -> int:
    """Return the kernel's count of OOM kills since boot, which psutil doesn't have; 0 if it is not known."""
    try:
        lines = VMSTAT.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


def _describe_machine(num_gpus: int) -> Machine:
    """Describe the devices that processes here may use."""
    cores = num_cores()  # fewer than the affinity has under a quota
    return Machine(_gpu_names(num_gpus), cores, tuple(sorted(os.sched_getaffinity(0)))[:cores])


def _gpu_names(number: int) -> tuple[str, ...]:
    """Return the names of the GPUs in CUDA_VISIBLE_DEVICES of this process, else their numbers."""
    visible = os.environ.get(_VISIBLE)
    names = visible.split(",") if visible else map(str, range(number))
    return tuple(name.strip() for name in names)[:number]
