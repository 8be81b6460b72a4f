"""The local pool: jobs on the devices of this machine, each with a lease on its own."""

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from litlab.config.freeze import cores
from litlab.controller import worker_environment
from litlab.errors import UserError
from litlab.signals import PARENT
from litlab.sweep.backend import Config, Ended, Job
from litlab.sweep.local.leases import Lease, Leases, Machine, objections
from litlab.sweep.local.prefork import Server, kill_group

VISIBLE = "CUDA_VISIBLE_DEVICES"
GRACE = 10.0  # seconds to save in, for a job that takes too long


@dataclass(frozen=True)
class PoolSettings:
    """
    Attributes:
        jobs: that run at once at most; None: as many as there are devices for.
        jobs_per_device: that share a GPU.
        timeout: seconds that a job may take; None: any number.
        retries: how often a failed job is started again, by whoever submits it.
    """

    jobs: int | None
    jobs_per_device: int
    timeout: float | None
    retries: int


@dataclass
class _Running:
    """
    Attributes:
        pid: of its worker, once the server has said it.
        deadline: when it is asked to end, then when it is killed; by the monotonic clock.
        oom_kills: how often the kernel had run out of memory when it started.
    """

    job: Job
    lease: Lease
    started: float
    deadline: float
    oom_kills: int
    pid: int | None = None
    timed_out: bool = False


class LocalPool:
    """A `Backend` of forked workers. The server that forks them takes seconds to start: this does not wait for it."""

    def __init__(self, settings: PoolSettings, machine: Machine | None = None) -> None:
        """`machine`: the devices to lease; None: those that there are."""
        self._settings = settings
        self._machine = machine
        self._known_leases: Leases | None = None
        self._running: dict[int, _Running] = {}
        self._ended: list[Ended] = []
        self._server = Server()
        self._num_servers = 1

    def check(self, configs: Sequence[Config]) -> None:
        """
        Raises:
            UserError: with a line for each thing that some job needs and this machine has not.
        """
        if lines := objections(self._leases, configs):
            raise UserError("\n".join(lines))

    def threads(self, config: Config, num_jobs: int) -> int | None:
        return self._leases.threads(config, num_jobs)

    def has_room(self, config: Config) -> bool:
        return self._leases.find(config) is not None

    def submit(self, job: Job) -> None:
        """
        Raises:
            UserError: if the process that starts the jobs was killed, and the one after it, too.
        """
        lease = self._leases.find(job.config)
        assert lease is not None, "submitted without room"
        self._start(job, lease)
        self._leases.take(lease)
        now, timeout = time.monotonic(), self._settings.timeout
        deadline = inf if timeout is None else now + timeout
        self._running[job.number] = _Running(job, lease, now, deadline, _oom_kills())

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            self._enforce_timeout()
            ended, self._ended = self._ended, []
            now = time.monotonic()
            if ended or now >= until:
                return ended
            next_deadline = min((each.deadline for each in self._running.values()), default=inf)
            self._listen(max(0.0, min(until, next_deadline) - now))

    def cancel(self, job: Job, signum: int) -> None:
        if job.number in self._running:
            self._server.signal(job.number, signum)

    def close(self) -> None:
        """Running jobs may save, then they are killed, all within seconds."""
        was_killed = self._server.close(is_idle=not self._running) != 0
        for each in self._running.values():
            if was_killed and each.pid is not None:
                kill_group(each.pid)
        self._running.clear()

    @property
    def _leases(self) -> Leases:
        if self._known_leases is None:
            num_gpus = self._server.num_gpus()
            machine = self._machine or Machine(_names_of_gpus(num_gpus), cores())
            settings = self._settings
            self._known_leases = Leases(machine, jobs=settings.jobs, jobs_per_device=settings.jobs_per_device)
        return self._known_leases

    def _start(self, job: Job, lease: Lease) -> None:
        self._listen(0)
        if self._server.has_ended:
            self._replace_server()
        try:
            self._server.start(job.number, job.run.path.absolute(), self._environment(lease))
        except BrokenPipeError:  # it ended this very moment
            self._listen(GRACE)
            self._replace_server()
            self._server.start(job.number, job.run.path.absolute(), self._environment(lease))

    def _environment(self, lease: Lease) -> dict[str, str]:
        visible = {} if lease.visible is None else {VISIBLE: lease.visible}
        return worker_environment() | {PARENT: str(self._server.pid)} | visible

    def _listen(self, seconds: float) -> None:
        """Take in what the server reports within some time; returns at the first report."""
        if self._server.has_ended:
            time.sleep(seconds)
            return
        for report in self._server.reports(seconds):
            self._take_in(report)
        if self._server.has_ended:  # somebody killed it: its workers are asked to end by the kernel, and end here
            for number, each in list(self._running.items()):
                if each.pid is not None:
                    kill_group(each.pid)
                self._settle(number, -signal.SIGKILL)

    def _take_in(self, report: dict[str, Any]) -> None:
        if "started" in report:
            self._running[report["started"]].pid = report["pid"]
        elif "ended" in report:
            self._settle(report["ended"], report["code"])

    def _settle(self, number: int, code: int) -> None:
        each = self._running.pop(number)
        self._leases.give_back(each.lease)
        out_of_memory = _oom_kills() > each.oom_kills
        seconds = time.monotonic() - each.started
        self._ended.append(Ended(each.job, code, seconds, timed_out=each.timed_out, out_of_memory=out_of_memory))

    def _replace_server(self) -> None:
        if self._num_servers == 2:
            raise UserError("the process that starts the jobs was killed twice (out of memory?); no more are started")
        self._server.close(is_idle=True)
        self._server = Server()
        self._num_servers += 1
        self._server.num_gpus()

    def _enforce_timeout(self) -> None:
        now = time.monotonic()
        for number, each in self._running.items():
            if now >= each.deadline:
                self._server.signal(number, signal.SIGKILL if each.timed_out else signal.SIGTERM)
                each.deadline = inf if each.timed_out else now + GRACE
                each.timed_out = True


def _names_of_gpus(number: int) -> tuple[str, ...]:
    """As CUDA_VISIBLE_DEVICES of this process has them, if it is set."""
    given = os.environ.get(VISIBLE)
    names = given.split(",") if given else map(str, range(number))
    return tuple(name.strip() for name in names)[:number]


def _oom_kills() -> int:
    """How many processes this kernel has ended for want of memory; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
