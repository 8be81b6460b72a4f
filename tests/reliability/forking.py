"""A process that has imported torch and lightning, and nothing else: its forks are workers that start in no time.

It has one thread and has run no torch operation, so that a fork is as good as a new process. Reads requests, a JSON
object a line; answers each in a line:

    {"call": "litlab.worker:main", "arguments": [DIR], "environment": {...}, "said": FILE}
        ->  the pid of a fork, which leads a session of its own and calls that
    {"ended": PID}
        ->  its exit code, negative for a signal; null while it goes on
"""

import atexit
import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from litlab.signals import held_back, ignore_signals


def main() -> None:
    """Serve until the other side closes."""
    _import_all()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with held_back():  # as the controller does for the workers that it starts
        print("ready", file=answers, flush=True)
        while line := sys.stdin.readline():
            request = json.loads(line)
            answer = _ended(request["ended"]) if "ended" in request else _fork(request)
            print(json.dumps(answer), file=answers, flush=True)


def _import_all() -> None:
    """What a training imports, sooner or later."""
    for name in ("litlab.training", "litlab.worker", "litlab.callbacks.throughput", "reliability.disturbed"):
        importlib.import_module(name)
    importlib.import_module("torch.utils.tensorboard")
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a process of several threads can't be forked"


def _fork(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = _become(request)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:  # the rest of Python's way out would copy every page of the memory that is shared
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _become(request: dict[str, Any]) -> int:
    """What the call returns: for the worker, its exit code, after what it does as `__main__`."""
    os.setsid()
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    nothing = os.open(os.devnull, os.O_RDWR)
    for source, target in ((nothing, 0), (nothing, 1), (said, 2)):
        os.dup2(source, target)
    os.environ |= request["environment"]
    module, _, name = request["call"].partition(":")
    sys.argv = [request["call"], *request["arguments"]]
    code = getattr(importlib.import_module(module), name)()
    ignore_signals()
    return int(code)


def _ended(pid: int) -> int | None:
    found, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


if __name__ == "__main__":
    main()
