"""The local pool: jobs on the devices of this machine, each with a lease on its own."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from litlab.config.freeze import cores
from litlab.errors import UserError
from litlab.process.controller import worker_environment
from litlab.process.fork_server import POLL, ForkRequest, ForkServer, Orphan
from litlab.process.signals import PARENT, exit_code
from litlab.sweep.backends.base import Config, Ended, Job
from litlab.sweep.backends.device_allocator import Lease, Leases, Machine, objections

RECENT = 3.0  # seconds
COUNTS = Path("/proc/vmstat")


class Shortage:
    """Of memory, on the whole machine. To be looked at often: it takes a new one for as old as the last look."""

    def __init__(self) -> None:
        self._kills = _kills()
        self._seen = -inf

    def look(self) -> None:
        kills = _kills()
        if kills > self._kills:
            self._seen = time.monotonic()
        self._kills = kills

    def is_recent(self) -> bool:
        self.look()
        return time.monotonic() - self._seen < RECENT


def _kills() -> int:
    """How many processes this kernel has ended for want of memory; 0 where it does not say."""
    try:
        lines = COUNTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


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
        asked: the last signal that it was sent.
        orphan: what is left to look at once its server has ended.
    """

    job: Job
    lease: Lease
    started: float
    deadline: float
    pid: int | None = None
    timed_out: bool = False
    asked: int | None = None
    orphan: Orphan | None = None


class LocalPool:
    """A `Backend` of forked workers. The server that forks them takes seconds to start: this does not wait for it."""

    def __init__(self, settings: PoolSettings, machine: Machine | None = None) -> None:
        """`machine`: the devices to lease; None: those that there are."""
        self._settings = settings
        self._machine = machine
        self._known_leases: Leases | None = None
        self._running: dict[int, _Running] = {}
        self._ended: list[Ended] = []
        self._paused: float | None = None  # since when, by the monotonic clock
        self._shortage = Shortage()
        self._server = ForkServer()
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
        if self._server.has_ended:
            self._replace_server()
        self._leases.take(lease)
        now, timeout = time.monotonic(), self._settings.timeout
        self._running[job.number] = _Running(job, lease, now, inf if timeout is None else now + timeout)
        self._start(self._running[job.number])

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        self._shortage.look()
        while True:
            self._enforce_timeout()
            ended, self._ended = self._ended, []
            now = time.monotonic()
            if ended or now >= until:
                return ended
            self._listen(max(0.0, min(until, self._next_deadline()) - now))

    def cancel(self, job: Job, signum: int) -> None:
        each = self._running.get(job.number)
        if each is None:
            return
        if signum == signal.SIGKILL and each.orphan is not None:
            each.orphan.kill()
        elif signum == signal.SIGKILL or not (each.timed_out or each.orphan):  # a second one would end its saving
            each.asked = signum
            self._server.signal(job.number, signum)

    def pause(self) -> None:
        self._paused = time.monotonic()
        self._to_all(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._paused is not None, "not paused"
        self._to_all(signal.SIGCONT)
        late = time.monotonic() - self._paused
        for each in self._running.values():
            each.deadline += late
        self._paused = None

    def close(self) -> None:
        """Running jobs may save, then they are killed, all within seconds."""
        if self._server.close(is_idle=not self._running) != 0:
            self._orphan_workers()
        left = [each.orphan for each in self._running.values() if each.orphan is not None]
        while left := [orphan for orphan in left if orphan.code() is None]:
            time.sleep(POLL)
        self._running.clear()

    @property
    def _leases(self) -> Leases:
        if self._known_leases is None:
            num_gpus = self._server.num_gpus()
            machine = self._machine or Machine(_names_of_gpus(num_gpus), cores())
            settings = self._settings
            self._known_leases = Leases(machine, jobs=settings.jobs, jobs_per_device=settings.jobs_per_device)
        return self._known_leases

    def _start(self, each: _Running) -> None:
        with suppress(BrokenPipeError):  # it ended this very moment: `_listen` will see that, and give it to the next
            self._server.fork(each.job.number, self._request(each))

    def _request(self, each: _Running) -> ForkRequest:
        run, visible = each.job.run, each.lease.visible
        return ForkRequest(
            module="litlab.training.worker",
            arguments=[str(run.path.absolute())],
            environment=worker_environment()
            | {PARENT: str(self._server.pid)}
            | ({} if visible is None else {VISIBLE: visible}),
            stdout=str(run.log.absolute()),
            stderr=str(run.log.absolute()),
        )

    def _to_all(self, signum: int) -> None:
        for number in self._running:
            self._server.signal(number, signum)

    def _listen(self, seconds: float) -> None:
        """Take in what happens within some time; returns at the first report."""
        if any(each.orphan for each in self._running.values()):
            seconds = min(seconds, POLL)
        if self._server.has_ended:
            time.sleep(seconds)
        else:
            for report in self._server.reports(seconds):
                self._take_in(report)
            if self._server.has_ended:  # somebody killed it
                self._orphan_workers()
                self._start_again()
        for number, each in list(self._running.items()):
            if each.orphan is not None and (code := each.orphan.code()) is not None:
                self._settle(number, code)

    def _take_in(self, report: dict[str, Any]) -> None:
        if "started" in report:
            self._running[report["started"]].pid = report["pid"]
        elif "ended" in report:
            self._settle(report["ended"], report["code"])

    def _settle(self, number: int, code: int) -> None:
        each = self._running.pop(number)
        self._leases.give_back(each.lease)
        seconds = time.monotonic() - each.started
        out_of_memory = self._shortage.is_recent()
        self._ended.append(Ended(each.job, code, seconds, timed_out=each.timed_out, out_of_memory=out_of_memory))

    def _orphan_workers(self) -> None:
        for each in self._running.values():
            if each.pid is not None and each.orphan is None:
                each.orphan = Orphan(each.pid)
                each.deadline = inf

    def _start_again(self) -> None:
        """The next server gets the requests that the one that was killed had not read."""
        unread = {number: each for number, each in self._running.items() if each.orphan is None}
        try:
            if any(each.asked is None for each in unread.values()):
                self._replace_server()
        except UserError:  # which the next `submit` raises
            for number in unread:
                self._settle(number, -signal.SIGKILL)
            return
        for number, each in unread.items():
            if each.asked is None:
                self._start(each)
            else:
                self._settle(number, exit_code(each.asked))

    def _replace_server(self) -> None:
        if self._num_servers == 2:
            raise UserError("the process that starts the jobs was killed twice (out of memory?); no more are started")
        self._server.close(is_idle=True)
        self._server = ForkServer()
        self._num_servers += 1

    def _next_deadline(self) -> float:
        if self._paused is not None:
            return inf
        return min((each.deadline for each in self._running.values()), default=inf)

    def _enforce_timeout(self) -> None:
        now = time.monotonic()
        if now < self._next_deadline():
            return
        for number, each in self._running.items():
            if now >= each.deadline:
                each.asked = signal.SIGKILL if each.timed_out else signal.SIGTERM
                self._server.signal(number, each.asked)
                each.deadline = inf if each.timed_out else now + GRACE
                each.timed_out = True


def _names_of_gpus(number: int) -> tuple[str, ...]:
    """As CUDA_VISIBLE_DEVICES of this process has them, if it is set."""
    given = os.environ.get(VISIBLE)
    names = given.split(",") if given else map(str, range(number))
    return tuple(name.strip() for name in names)[:number]
