"""A process that has imported torch and Lightning and forks quickly, together with its client.

`python -P -m litlab.process.fork_server MODULE...` imports the modules (`PACKAGE.*` stands for all modules of a
package) and then forks on request. It has one thread and runs no operation of torch, so a fork does what a new
interpreter would do, without the seconds of importing.

The client (`ForkServer`) writes requests to its standard input, a JSON object a line:

    {"fork": ID, ...}                      the fields of a `ForkRequest`
    {"signal": SIGNUM, "id": ID}           to the fork; SIGKILL, SIGSTOP and SIGCONT to its whole process group

and reads reports from its standard output:

    {"ready": NUM_GPUS}    {"started": ID, "pid": PID}    {"ended": ID, "code": CODE}    negative for a signal

When its input ends, the server stops all forks: SIGTERM, then SIGKILL. When the server is killed, the kernel sends
SIGTERM to the forks; the client waits for such orphans with `Orphan`. No torch on the client's side.
"""

import ctypes
import faulthandler
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from litlab.errors import UserError
from litlab.process.child_process import FAILED, Fork, count_gpus, group_exists, run_module, signal_group
from litlab.process.controller import worker_environment
from litlab.process.device_leases import hold_leases
from litlab.process.imports import import_modules
from litlab.process.signals import STOP_SIGNALS, blocked_signals, exit_code

WORKER_MODULES = (
    "litlab.training.*", "litlab.callbacks.*", "litlab.loggers", "litlab.tasks.*", "litlab.optim.*", "litlab.data.*",
    "litlab.models.*", "torch.utils.tensorboard", "torch.nn.parallel", "lightning.pytorch.strategies",
)  # fmt: skip
COMMAND = (sys.executable, "-P", "-m", "litlab.process.fork_server")
GRACE = 10.0  # seconds for forks to save in, once they were asked to stop
KILL_GRACE = 5.0  # seconds for killed processes to be gone
POLL = 0.02  # seconds between two looks at processes that are no children
_LOG_LINES = 15  # of the server's output, shown when it could not start
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>


@dataclass(frozen=True, kw_only=True)
class ForkRequest:
    """A fork that runs `python -P -m MODULE ARGUMENTS` and leads a process group of its own.

    Attributes:
        module: Name of the module to run as `__main__`.
        arguments: Its command line.
        environment: All of its environment variables.
        directory: Working directory; None for the server's.
        stdout: File that its output is appended to; created where it does not exist. No symbolic link.
        stderr: The same for its errors.
        new_session: Whether it leads a new session, too.
        block_signals: Whether the signals in `signals.STOP_SIGNALS` wait until the module unblocks them.
        kill_group: Whether to kill the rest of its process group when it ends. Its end is reported when the group is
            empty, since till then its devices are in use.
        leases: Files of the leases that it holds, see `device_leases`.
    """

    module: str
    arguments: Sequence[str]
    environment: dict[str, str]
    directory: str | None = None
    stdout: str = os.devnull
    stderr: str = os.devnull
    new_session: bool = True
    block_signals: bool = True
    kill_group: bool = True
    leases: Sequence[str] = ()


class ForkServer:
    """Client of a fork server. Starts the server at once; it is ready some seconds later.

    Args:
        modules: Names of the modules that the server imports.

    Attributes:
        pid: Process id of the server, the parent of all forks.
        has_ended: Whether the server has ended, which happens only if something kills it.

    Raises:
        UserError: If the server can't be started.
    """

    def __init__(self, modules: Sequence[str] = WORKER_MODULES) -> None:
        if sys.platform != "linux":
            raise UserError("hydra/launcher=pool needs Linux; expected hydra/launcher=basic")
        environment = worker_environment() | {"OPENBLAS_NUM_THREADS": "1"}  # a process of several threads can't fork
        try:
            self._output = os.fdopen(os.memfd_create("litlab.process.fork_server"), "w+b")  # /tmp may be full
            with blocked_signals():
                self._process = subprocess.Popen(
                    [*COMMAND, *modules], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=self._output, bufsize=0, start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise UserError(f"the process that starts the jobs can't be started: {error.strerror}") from error
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._reports = self._process.stdin, self._process.stdout
        self.pid = self._process.pid
        self.has_ended = False
        self._pending = b""
        self._num_gpus: int | None = None

    def num_gpus(self) -> int:
        """Wait until the server is ready, and return the number of GPUs that forks can use.

        Raises:
            UserError: If the server ended before, with its last output.
        """
        while self._num_gpus is None and not self.has_ended:
            for report in self.reports(60):  # one at most: nothing was requested yet
                self._num_gpus = int(report["ready"])
        if self._num_gpus is not None:
            return self._num_gpus
        self._output.seek(0)
        output = "\n".join(self._output.read().decode(errors="replace").splitlines()[-_LOG_LINES:])
        code = self._process.returncode
        raise UserError(f"the process that starts the jobs ended with exit code {code} before the first one:\n{output}")

    def fork(self, fork_id: int, request: ForkRequest) -> None:
        """Start a fork.

        Args:
            fork_id: Number that stands for the fork in reports and signals; unique among running forks.
            request: Command to run.

        Raises:
            BrokenPipeError: If the server has ended.
        """
        self._send({"fork": fork_id, **asdict(request)})

    def signal(self, fork_id: int, signum: int) -> None:
        """Send a signal to a fork; SIGKILL, SIGSTOP and SIGCONT to its whole group. Does nothing if it has ended."""
        with suppress(BrokenPipeError):
            self._send({"signal": signum, "id": fork_id})

    def reports(self, seconds: float) -> list[dict[str, Any]]:
        """Wait for reports, at most so many seconds, and return those since the last call. Sets `has_ended`."""
        readable, _, _ = select.select([self._reports], [], [], seconds)
        if not readable:
            return []
        received = os.read(self._reports.fileno(), 1 << 16)
        if not received:
            self.has_ended = True
            self._process.wait()
        *lines, self._pending = (self._pending + received).split(b"\n")
        return [json.loads(line) for line in lines]

    def close(self, *, is_idle: bool) -> int:
        """End the server and all forks, which may save before they are killed.

        Args:
            is_idle: Whether no forks run. Then the server is killed at once: it may still be importing.

        Returns:
            Exit code of the server.
        """
        self._requests.close()
        if is_idle:
            self._process.kill()
        code = self._process.wait()
        self._reports.close()
        self._output.close()
        return code

    def _send(self, request: dict[str, Any]) -> None:
        content = memoryview(json.dumps(request).encode() + b"\n")
        while content:  # a pipe takes what fits in
            content = content[self._requests.write(content) :]


class Orphan:
    """A fork whose server was killed, observed by its process id. It has some seconds to save, then it is killed.

    Args:
        pid: Process id of the fork, which is also its process group.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._process: psutil.Process | None = None
        with suppress(psutil.NoSuchProcess):
            self._process = psutil.Process(pid)  # knows its start: the number may be another process's later
        self._code: int | None = None
        self._deadline = time.monotonic() + GRACE

    def kill(self) -> None:
        """Kill all processes of its group."""
        self._end(-signal.SIGKILL)

    def code(self) -> int | None:
        """Return None while members of its group exist, then a plausible exit code. Kills the group after `GRACE`."""
        if self._code is None:
            if not self._is_running():
                self._end(exit_code(signal.SIGTERM))
            elif time.monotonic() >= self._deadline:
                self.kill()
        is_over = not group_exists(self._pid) or time.monotonic() >= self._deadline
        return self._code if is_over else None

    def _is_running(self) -> bool:
        try:
            return (
                self._process is not None
                and self._process.is_running()
                and self._process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
            )
        except psutil.NoSuchProcess:
            return False

    def _end(self, code: int) -> None:
        self._code = code
        self._deadline = time.monotonic() + KILL_GRACE
        signal_group(self._pid, signal.SIGKILL)


def main() -> None:
    """Import the modules that the command line names, and serve until the input ends."""
    with blocked_signals():  # also in the forks, until they are ready for a signal; here for good
        reports = os.dup(1)
        os.dup2(2, 1)
        import_modules(name for pattern in sys.argv[1:] for name in _matching_modules(pattern))
        assert psutil.Process().num_threads() == 1, "a process of several threads can't be forked"
        gc.collect()
        gc.freeze()
        Server(reports).serve()


def _matching_modules(pattern: str) -> Iterator[str]:
    """Yield the name of a module, or of a package with all its modules; it is imported meanwhile."""
    name = pattern.removesuffix(".*")
    yield name
    if name != pattern:
        for module in pkgutil.walk_packages(sys.modules[name].__path__, f"{name}."):
            yield module.name


class Server:
    """The server's side: starts, signals and reaps forks.

    Args:
        reports: Descriptor to write reports to.
    """

    def __init__(self, reports: int) -> None:
        self._reports = reports
        self._pid = os.getpid()
        self._forks: dict[int, tuple[int, bool]] = {}  # pid -> id, and whether to kill its group
        self._killed: dict[int, tuple[int, int, float]] = {}  # group of an ended fork -> id, code, deadline
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def serve(self) -> None:
        """Answer requests until the input ends, then stop all forks."""
        _control(_PR_SET_CHILD_SUBREAPER, 1)  # process 1 of a container may reap nobody
        num_gpus = count_gpus()
        signal.signal(signal.SIGCHLD, lambda *_: None)  # a handler, or Python would not wake us up
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._report({"ready": num_gpus})
        pending = b""
        while received := self._receive():
            *lines, pending = (pending + received).split(b"\n")
            for line in lines:
                self.answer(json.loads(line))
        self._stop_forks()

    def answer(self, request: dict[str, Any]) -> None:
        """Start or signal a fork."""
        if "fork" in request:
            self._fork(request.pop("fork"), ForkRequest(**request))
            return
        for pid, (fork_id, _) in self._forks.items():
            if fork_id == request["id"]:
                _send_signal(pid, request["signal"])

    def _receive(self) -> bytes:
        """Return the next requests, or a part of one; empty at the end. Reaps forks meanwhile."""
        while not self._is_readable([0], None):
            pass
        return os.read(0, 1 << 16)

    def _is_readable(self, descriptors: list[int], seconds: float | None) -> bool:
        """Wait so long for one of the descriptors, or for an ended fork, which is reaped."""
        if self._killed:
            seconds = POLL if seconds is None else min(seconds, POLL)
        readable, _, _ = select.select([*descriptors, self._wake], [], [], seconds)
        if self._wake in readable:
            os.read(self._wake, 1 << 10)
            self._reap()
        for group, (fork_id, code, deadline) in list(self._killed.items()):
            if not group_exists(group) or time.monotonic() > deadline:
                del self._killed[group]
                self._report({"ended": fork_id, "code": code})
        return any(descriptor in readable for descriptor in descriptors)

    def _fork(self, fork_id: int, request: ForkRequest) -> None:
        with ExitStack() as stack:
            try:
                streams = []
                for path, flags in (
                    (os.devnull, os.O_RDONLY),
                    (request.stdout, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
                    (request.stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
                ):
                    streams.append(_open(path, flags))
                    stack.callback(os.close, streams[-1])
                fork = Fork(lambda: self._run(request, streams))
            except OSError as error:  # a file; no memory; as many processes as there may be
                reason = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
                message = f"litlab: no process can be started: {reason}\n"
                with suppress(OSError):
                    os.write(streams[2] if len(streams) == 3 else 2, message.encode())
                self._report({"ended": fork_id, "code": FAILED})
                return
        self._forks[fork.pid] = (fork_id, request.kill_group)
        self._report({"started": fork_id, "pid": fork.pid})

    def _run(self, request: ForkRequest, streams: Sequence[int]) -> int:
        """Become the process that was requested. Called in the fork."""
        if request.new_session:
            os.setsid()
        else:
            os.setpgid(0, 0)
        _end_with_parent(self._pid)
        hold_leases(request.leases)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for target, descriptor in enumerate(streams):
            os.dup2(descriptor, target)
        for descriptor in (*streams, self._reports, self._wake, self._waker):
            os.close(descriptor)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        faulthandler.enable(all_threads=False)  # the traceback of a crash in compiled code
        if request.directory is not None:
            os.chdir(request.directory)
        set_environment(request.environment)
        if not request.block_signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
        return run_module(request.module, request.arguments)

    def _reap(self) -> None:
        """Reap ended forks. An ended one keeps its pid until it is reaped: so long no other group can have it."""
        with suppress(ChildProcessError):  # there are none
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                fork_id, kill_group = self._forks.pop(ended.si_pid, (None, False))  # None: a descendant of a fork
                if kill_group:
                    _send_signal(ended.si_pid, signal.SIGKILL)
                _, status = os.waitpid(ended.si_pid, 0)
                code = os.waitstatus_to_exitcode(status)
                if fork_id is not None and kill_group:
                    self._killed[ended.si_pid] = (fork_id, code, time.monotonic() + KILL_GRACE)
                elif fork_id is not None:
                    self._report({"ended": fork_id, "code": code})

    def _report(self, report: dict[str, int]) -> None:
        with suppress(BrokenPipeError):  # then the input has ended, too
            os.write(self._reports, json.dumps(report).encode() + b"\n")

    def _stop_forks(self) -> None:
        """Let all forks save, then kill the rest."""
        for signum, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, KILL_GRACE)):
            deadline = time.monotonic() + seconds
            for pid in self._forks:
                _send_signal(pid, signum)
                _send_signal(pid, signal.SIGCONT)  # it may be paused
            while (self._forks or self._killed) and (remaining := deadline - time.monotonic()) > 0:
                self._is_readable([], remaining)


def set_environment(environment: dict[str, str]) -> None:
    """Replace all environment variables of this process, and with PYTHONPATH the start of `sys.path`."""
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ.clear()
    os.environ.update(environment)
    own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if own != inherited:
        sys.path[:] = [path for path in own if path] + [path for path in sys.path if path not in inherited]
        importlib.invalidate_caches()


def _send_signal(pid: int, signum: int) -> None:
    """Signal a fork that has not been reaped; its group, too, for some signals, though it may not have one yet."""
    os.kill(pid, signum)
    if signum in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT):
        signal_group(pid, signum)


def _open(path: str, flags: int) -> int:
    """Open a stream of a fork. Never waits, as opening a FIFO would, and follows no link that a run directory holds."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NOCTTY | os.O_NONBLOCK, 0o666)
    os.set_blocking(descriptor, True)
    return descriptor


def _control(option: int, value: int) -> None:
    ctypes.CDLL(None).prctl(option, value)


def _end_with_parent(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent dies, however it dies."""
    _control(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before
        raise SystemExit(exit_code(signal.SIGTERM))


if __name__ == "__main__":
    main()
