"""A process that has imported torch and lightning, and whose forks are workers: `python -P -m litlab.server`.

It has one thread and runs no operation of torch's, so that a fork is as good as a new process, and starts in no time.
Whoever started it (`litlab.sweep.local.prefork`) writes requests to its standard input, a JSON object a line:

    {"start": JOB, "directory": DIR, "environment": {...}}     a worker on a run directory, with this environment alone
    {"signal": SIGNUM, "job": JOB}                             to the worker; SIGKILL, -STOP, -CONT to all of its group

and reads reports from its standard output:

    {"ready": NUM_GPUS}    {"started": JOB, "pid": PID}    {"ended": JOB, "code": CODE}    negative for a signal

A job has ended when nobody of its group is left: till then its devices are not free. When the input ends, the server
ends with all its workers; they end with it, too.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from litlab.errors import UserError
from litlab.process.child_process import FAILED, Fork, is_anybody_in, signal_group
from litlab.process.controller import worker_environment
from litlab.process.signals import Stopped, exit_code, held_back
from litlab.training.worker import Origin, gpus_seen_by_a_fork, work

GRACE = 10.0  # seconds for the workers to save, once nobody is there to read of it
_IMPORTED = (
    "litlab.training.run", "litlab.training.process_group", "litlab.training.allowlist", "litlab.tasks.image_classifier", "litlab.callbacks.confusion_matrix",
    "litlab.callbacks.images", "litlab.callbacks.training_log", "litlab.data.cifar10", "litlab.data.image_folder",
    "litlab.data.shapes", "litlab.models.cnn", "litlab.models.resnet", "litlab.models.torchvision",
    "litlab.models.whitened", "litlab.optim.muon", "litlab.optim.parameter_groups", "litlab.optim.schedules",
    "torch.utils.tensorboard", "torch.nn.parallel", "lightning.pytorch.strategies",
)  # fmt: skip
_PATIENCE = 5.0  # seconds for killed processes to be gone
_POLL = 0.02  # seconds between two looks for them
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>


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
        self._left: dict[int, tuple[int, int, float]] = {}  # group of a dead worker -> number, code, till when to wait
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        _control(_PR_SET_CHILD_SUBREAPER, 1)  # process 1 of a container may reap nobody
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
        while not self._is_readable([0], None):
            pass
        return os.read(0, 1 << 16)

    def _is_readable(self, descriptors: list[int], seconds: float | None) -> bool:
        """Waits so long for one of them, or for something to reap."""
        if self._left:
            seconds = _POLL if seconds is None else min(seconds, _POLL)
        readable, _, _ = select.select([*descriptors, self._wake], [], [], seconds)
        if self._wake in readable:
            os.read(self._wake, 1 << 10)
            self._reap()
        for group, (number, code, deadline) in list(self._left.items()):
            if not is_anybody_in(group) or time.monotonic() > deadline:
                del self._left[group]
                self._report({"ended": number, "code": code})
        return any(each in readable for each in descriptors)

    def _answer(self, request: dict[str, Any]) -> None:
        if "start" in request:
            self._start(request["start"], request["directory"], request["environment"])
        for pid, number in self._jobs.items():
            if number == request.get("job"):
                _send(pid, request["signal"])

    def _start(self, number: int, directory: str, environment: dict[str, str]) -> None:
        try:
            worker = Fork(lambda: self._become_worker(directory, environment))
        except OSError as error:  # no memory; as many processes as there may be
            _say(Path(directory, "run.log"), f"litlab: no process can be started: {error.strerror}\n")
            self._report({"ended": number, "code": FAILED})
            return
        self._jobs[worker.pid] = number
        self._report({"started": number, "pid": worker.pid})

    def _reap(self) -> None:
        """A dead worker keeps its number until it is reaped: so long, nobody else's group can have it."""
        with suppress(ChildProcessError):  # there are none
            while dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                number = self._jobs.pop(dead.si_pid, None)  # None: it was a child of one of them
                if number is not None:
                    _send(dead.si_pid, signal.SIGKILL)
                _, status = os.waitpid(dead.si_pid, 0)
                if number is not None:
                    code = os.waitstatus_to_exitcode(status)
                    self._left[dead.si_pid] = (number, code, time.monotonic() + _PATIENCE)

    def _report(self, report: dict[str, int]) -> None:
        with suppress(BrokenPipeError):  # then the input has ended, too
            os.write(self._reports, json.dumps(report).encode() + b"\n")

    def _end(self) -> None:
        """Nobody is there any more: let the workers save, then kill what is left."""
        for signum, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, _PATIENCE)):
            deadline = time.monotonic() + seconds
            for pid in self._jobs:
                _send(pid, signum)
                _send(pid, signal.SIGCONT)  # it may be paused
            while (self._jobs or self._left) and (rest := deadline - time.monotonic()) > 0:
                self._is_readable([], rest)

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
        sys.argv = ["litlab.training.worker", directory]
        return work(directory, Origin(started, forked=True))


def _send(pid: int, signum: int) -> None:
    """To a worker that has not been reaped; some to its whole group, too, which it may not have founded yet."""
    os.kill(pid, signum)
    if signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
        signal_group(pid, signum)


def _control(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however it dies."""
    _control(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was faster
        raise SystemExit(Stopped(signal.SIGTERM).exit_code)


def _say(log: Path, text: str) -> None:
    """Add to the log of a job that has no process."""
    try:
        with open(log, "a", encoding="utf-8", opener=_no_link) as file:
            file.write(text)
    except OSError as error:
        print(f"{text}litlab: {log} cannot be written: {error.strerror}", file=sys.stderr)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _write_to(log: Path) -> None:
    """What the user's code prints, and the traceback of a crash in compiled code, belong to the run."""
    said = _no_link(str(log), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (said, 1), (said, 2)):
        os.dup2(source, target)
    os.close(said)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    faulthandler.enable(all_threads=False)


if __name__ == "__main__":
    main()


ORPHAN_GRACE = 10.0  # seconds to save in
PATIENCE = 5.0  # seconds for killed processes to be gone
POLL = 0.05  # seconds between two looks at it


class Orphan:
    """To be looked at until it has ended."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._born = _born(pid)
        self._code: int | None = None
        self._deadline = time.monotonic() + ORPHAN_GRACE

    def kill(self) -> None:
        """End all processes of its group."""
        self._end(-signal.SIGKILL)

    def code(self) -> int | None:
        """An exit code such as it may have had; None while anybody of its group is there. Kills it in the end."""
        if self._code is None:
            if self._born is None or _born(self._pid) != self._born:
                self._end(exit_code(signal.SIGTERM))
            elif time.monotonic() >= self._deadline:
                self.kill()
        is_over = not is_anybody_in(self._pid) or time.monotonic() >= self._deadline
        return self._code if is_over else None

    def _end(self, code: int) -> None:
        """Also whom it has left behind."""
        self._code = code
        self._deadline = time.monotonic() + PATIENCE
        signal_group(self._pid, signal.SIGKILL)


def _born(pid: int) -> str | None:
    """When a process started, in the kernel's ticks: its number may be another's by now. None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else fields[19]


COMMAND = (sys.executable, "-P", "-m", "litlab.process.fork_server")
_LINES = 15  # of what it said before it ended
# Its own threads: a process of several can't be forked. A worker gets the number that its config says.
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}


class ForkServer:
    """A `litlab.process.fork_server`; made at once, ready seconds later.

    Attributes:
        pid: of its process, the parent of all workers.
        has_ended: whether it has ended, which it never should by itself.
    """

    def __init__(self) -> None:
        """
        Raises:
            UserError: if no process can be started.
        """
        if sys.platform != "linux":
            raise UserError("hydra/launcher=pool needs Linux; expected hydra/launcher=basic")
        try:
            self._said = os.fdopen(os.memfd_create("litlab.process.fork_server"), "w+b")  # /tmp may be full
            self._process = _start(self._said)
        except OSError as error:
            raise UserError(f"the process that starts the jobs can't be started: {error.strerror}") from error
        self.pid = self._process.pid
        self.has_ended = False
        self._pending = b""
        self._num_gpus: int | None = None

    def num_gpus(self) -> int:
        """Waits until it is ready, and says how many GPUs its workers can use.

        Raises:
            UserError: if it ended before, with what it said.
        """
        while self._num_gpus is None and not self.has_ended:
            for report in self.reports(60):  # one at most: it has nothing else to say yet
                self._num_gpus = int(report["ready"])
        if self._num_gpus is not None:
            return self._num_gpus
        said = self._end_of_what_it_said()
        code = self._process.returncode
        raise UserError(f"the process that starts the jobs ended with exit code {code} before the first one:\n{said}")

    def start(self, number: int, directory: Path, environment: dict[str, str]) -> None:
        """Start a worker.

        Raises:
            BrokenPipeError: if the server has ended.
        """
        self._ask({"start": number, "directory": str(directory), "environment": environment})

    def signal(self, number: int, signum: int) -> None:
        """To the worker alone; SIGKILL, SIGSTOP and SIGCONT to all its processes. Nothing happens if it has ended."""
        with suppress(BrokenPipeError):
            self._ask({"signal": signum, "job": number})

    def reports(self, seconds: float) -> list[dict[str, Any]]:
        """What it has said since the last call; waits so long for something. Notices when it has ended."""
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not readable:
            return []
        received = os.read(self._process.stdout.fileno(), 1 << 16)
        if not received:
            self.has_ended = True
            self._process.wait()
        *lines, self._pending = (self._pending + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self, *, is_idle: bool) -> int:
        """End it, and with it all its workers: they may save, then they are killed. Returns its exit code.

        One that is idle, without workers, is ended at once: it may still be importing.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        if is_idle:
            self._process.kill()
        code = self._process.wait()
        self._process.stdout.close()
        self._said.close()
        return code

    def _ask(self, request: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        content = memoryview(json.dumps(request).encode() + b"\n")
        while content:  # a pipe takes what fits in
            content = content[self._process.stdin.write(content) :]

    def _end_of_what_it_said(self) -> str:
        self._said.seek(0)
        return "\n".join(self._said.read().decode(errors="replace").splitlines()[-_LINES:])


def _start(said: BinaryIO) -> "subprocess.Popen[bytes]":
    with held_back():
        return subprocess.Popen(
            COMMAND,
            env=worker_environment() | _ONE_THREAD,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            bufsize=0,
            start_new_session=True,
        )
