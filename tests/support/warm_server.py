"""A process that has imported all that litlab's commands and workers import, and has run nothing: to be forked.

A request comes over the socket that is its standard input, with three descriptors for the fork's standard streams and
one that is told the fork's pid and, when it has ended, its exit code, each in a line.

A fork does what `python ARGUMENTS` does: the module of the arguments runs as `__main__`, with a folder, variables and
streams of its own. Where it starts an interpreter on one of litlab's modules (a worker, a rank, the server of a pool,
the check of foreign classes), that is a fork, too: by the same subprocess.Popen, which gives it its parent, group,
pipes and signal mask, but calls the module where it would have called exec. All that is spared are imports; tests of
cold processes show that these are right, and how long they take.

Libraries read the number of threads when they are imported: here it is one.
"""

import gc
import importlib
import json
import logging
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from litlab.process.child_process import _do
from litlab.process.fork_server import _IMPORTED
from litlab.process.ranks import global_rank
from litlab.process.signals import held_back

COMMANDS = (
    "litlab.cli.main", "litlab.cli.train", "litlab.cli.resume", "litlab.cli.rerun", "litlab.cli.evaluate",
    "litlab.cli.predict", "litlab.cli.status", "litlab.sweep.multirun", "litlab.config.targets",
)  # fmt: skip
MOST = 1 << 20  # bytes of a request
STREAMS = ("stdin", "stdout", "stderr")
_path = sys.path[len([each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]) :]
_kept: list[object] = []  # streams of the process that this was
_start = subprocess.Popen.__init__


def main() -> None:
    """Fork on request, until the other side closes."""
    for name in (*_IMPORTED, *COMMANDS):
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process of several threads can't be forked"
    gc.collect()
    gc.freeze()
    requests = socket.socket(fileno=os.dup(0))
    running: dict[int, tuple[int, int]] = {}  # descriptor of a fork -> its pid, where to tell its end
    while True:
        for readable in select.select([requests, *running], [], [])[0]:
            if readable in running:
                _tell_end(readable, *running.pop(readable))
                continue
            content, descriptors, *_ = socket.recv_fds(requests, MOST, len(STREAMS) + 1)
            if not content:
                return
            *streams, told = descriptors
            pid = _fork(json.loads(content), streams)
            os.write(told, f"{pid}\n".encode())
            running[os.pidfd_open(pid)] = pid, told


def _tell_end(descriptor: int, pid: int, told: int) -> None:
    _, status = os.waitpid(pid, 0)
    os.write(told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os.close(told)
    os.close(descriptor)


def _fork(request: dict[str, Any], streams: Sequence[int]) -> int:
    with held_back() if request["held_back"] else nullcontext():
        pid = os.fork()
        if pid == 0:
            _become_first(request, streams)
    for descriptor in streams:
        os.close(descriptor)
    return pid


def _become_first(request: dict[str, Any], streams: Sequence[int]) -> NoReturn:
    """Do what was asked for, in a new fork of the server."""
    os.chdir(request["folder"])
    os.setsid() if request["leads_session"] else os.setpgid(0, 0)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    _become(request["arguments"], request["environment"], ())


def _become(arguments: Sequence[str], environment: Mapping[str, str] | None, kept: Sequence[int]) -> NoReturn:
    """Do in this fork what `python ARGUMENTS` would do, and end."""
    gc.freeze()  # nothing of the process that this was is freed, and so closes a descriptor or writes what it buffered
    gc.enable()
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor >= len(STREAMS) and descriptor not in kept:
            with suppress(OSError):  # the one of the listing
                os.close(descriptor)
    _as_at_the_start_of_python()
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    subprocess.Popen.__init__ = _popen  # type: ignore[method-assign, assignment]
    _do(partial(_run, arguments))


def _as_at_the_start_of_python() -> None:
    """Signals, streams and logging."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for number, name in enumerate(STREAMS):
        _kept.append(getattr(sys, name))
        stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115  (open to the end)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)


def _run(arguments: Sequence[str]) -> int:
    """As `python [-P] -m MODULE ...` finds and calls it. Returns 0, or raises what it raises."""
    place = arguments.index("-m")
    own = [] if "-P" in arguments[:place] else [str(Path.cwd())]
    theirs = [each for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    sys.path[:] = [*own, *theirs, *_path]
    importlib.invalidate_caches()
    module = arguments[place + 1]
    sys.argv = [module, *arguments[place + 2 :]]
    _as_imported_here()
    sys.modules.pop(module, None)  # it is imported anew, as the main one
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    return 0


def _as_imported_here() -> None:
    """What libraries read from the environment of the process that imports them."""
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    rank_zero_only.rank = global_rank()  # type: ignore[attr-defined]


def _popen(process: "subprocess.Popen[Any]", arguments: Any, *others: Any, **options: Any) -> None:
    """subprocess.Popen's, save that an interpreter for a module of litlab's is a fork instead of a new program."""
    if _is_of_litlab(arguments):
        become = partial(_become, arguments, options.get("env"), options.get("pass_fds", ()))
        options["preexec_fn"] = become  # called last before exec, all else being set up; it doesn't return
    _start(process, arguments, *others, **options)


def _is_of_litlab(arguments: Any) -> bool:
    if not isinstance(arguments, (list, tuple)) or arguments[0] != sys.executable or "-m" not in arguments[:-1]:
        return False
    return str(arguments[arguments.index("-m") + 1]).partition(".")[0] == "litlab"


if __name__ == "__main__":
    main()
