"""A process that has imported torch and lightning, and whose forks are workers: `python -P -m litlab.server`.

It has one thread and runs no operation of torch's, so that a fork is as good as a new process, and starts in no time.
Whoever started it (`litlab.sweep.local.prefork`) writes requests to its standard input, a JSON object a line:

    {"start": JOB, "directory": DIR, "environment": {...}}     a worker on a run directory, with this environment alone
    {"signal": SIGNUM, "job": JOB}                             to the worker; SIGKILL to all processes of its group

and reads reports from its standard output:

    {"ready": NUM_GPUS}    {"started": JOB, "pid": PID}    {"ended": JOB, "code": CODE}    negative for a signal

When its input ends, it ends with all its workers; they end with it, too.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from litlab.forks import Fork
from litlab.signals import Stopped, held_back
from litlab.worker import Origin, gpus_seen_by_a_fork, work

GRACE = 10.0  # seconds for the workers to save, once nobody is there to read of it
_IMPORTED = (
    "litlab.training", "litlab.rendezvous", "litlab.kinds", "litlab.task", "litlab.callbacks.confusion",
    "litlab.callbacks.pictures", "litlab.callbacks.throughput", "litlab.data.cifar10", "litlab.data.image_folder",
    "litlab.data.shapes", "litlab.models.cnn", "litlab.models.resnet", "litlab.models.torchvision", "litlab.optim",
    "torch.utils.tensorboard", "torch.nn.parallel", "lightning.pytorch.strategies",
)  # fmt: skip
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Serve until the input ends."""
    with held_back():  # also in the workers, until they are ready for a signal; here for good
        reports = os.dup(1)
        os.dup2(2, 1)
        for name in _IMPORTED:
            importlib.import_module(name)
        threads = Path("/proc/self/task")
        assert not threads.exists() or len(list(threads.iterdir())) == 1, "a process of several threads can't be forked"
        gc.collect()
        gc.freeze()
        Server(reports).serve()


class Server:
    """Starts, signals and reaps workers. Each leads a session and process group of its own."""

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._pid = os.getpid()
        self._jobs: dict[int, int] = {}  # pid -> number
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        gpus = gpus_seen_by_a_fork()
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, or Python would not wake us up
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._report({"ready": gpus})
        pending = b""
        while received := self._received():
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                self._answer(json.loads(line))
        self._end()

    def _received(self) -> bytes:
        """The next requests, or a part of one; reaps meanwhile. Empty when there will be none."""
        while True:
            readable, _, _ = select.select([0, self._wake], [], [])
            self._reap_if(self._wake in readable)
            if 0 in readable:
                return os.read(0, 1 << 16)

    def _answer(self, request: dict[str, Any]) -> None:
        if "start" in request:
            worker = Fork(lambda: self._become_worker(request["directory"], request["environment"]))
            self._jobs[worker.pid] = request["start"]
            self._report({"started": request["start"], "pid": worker.pid})
        for pid, number in self._jobs.items():
            if number == request.get("job"):
                _send(pid, request["signal"])

    def _reap_if(self, woken: bool) -> None:
        if woken:
            os.read(self._wake, 1 << 10)
            self._reap()

    def _reap(self) -> None:
        """A dead worker keeps its number until it is reaped: so long, nobody else's group can have it."""
        while self._jobs and (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)):
            _send(dead.si_pid, signal.SIGKILL)
            _, status = os.waitpid(dead.si_pid, 0)
            number = self._jobs.pop(dead.si_pid)
            self._report({"ended": number, "code": os.waitstatus_to_exitcode(status)})

    def _report(self, report: dict[str, int]) -> None:
        with suppress(BrokenPipeError):  # then the input has ended, too
            os.write(self._reports, json.dumps(report).encode() + b"\n")

    def _end(self) -> None:
        """Nobody is there any more: let the workers save, then kill what is left."""
        deadline = time.monotonic() + GRACE
        for pid in self._jobs:
            _send(pid, signal.SIGTERM)
        while self._jobs and (left := deadline - time.monotonic()) > 0:
            woken, _, _ = select.select([self._wake], [], [], left)
            self._reap_if(bool(woken))
        for pid in self._jobs:
            _send(pid, signal.SIGKILL)

    def _become_worker(self, directory: str, environment: dict[str, str]) -> int:
        started = time.perf_counter()
        os.setsid()
        _end_with(self._pid)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for descriptor in (self._reports, self._wake, self._waker):
            os.close(descriptor)
        _write_to(Path(directory, "run.log"))
        os.environ.clear()
        os.environ.update(environment)
        sys.argv = ["litlab.worker", directory]
        return work(directory, Origin(started, forked=True))


def _send(pid: int, signum: int) -> None:
    """To a worker that has not been reaped; SIGKILL to its whole group, which it may not have founded yet."""
    os.kill(pid, signum)
    if signum == signal.SIGKILL:
        with suppress(ProcessLookupError, PermissionError):  # macOS: no permission where all of it are dead
            os.killpg(pid, signum)


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was faster
        raise SystemExit(Stopped(signal.SIGTERM).exit_code)


def _write_to(log: Path) -> None:
    """What the user's code prints, and the traceback of a crash in compiled code, belong to the run."""
    said = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    os.close(said)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable()


if __name__ == "__main__":
    main()
