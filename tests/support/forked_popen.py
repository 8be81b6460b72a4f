"""Make `subprocess.Popen` fork where it would start an interpreter on a module of litlab: imported by `support.warm`.

A warm command that starts workers, a fork server or the check of targets would wait seconds for their imports. With
this module in the fork server they are forks of the command: Popen sets up parent, group, pipes and signal mask as
always, but runs the module where it would have called exec. Tests of cold processes show that imports are right.
"""

import gc
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from litlab.process.child_process import run_and_exit, run_module
from litlab.process.fork_server import set_environment

STREAMS = ("stdin", "stdout", "stderr")
_popen = subprocess.Popen.__init__
_path = [path for path in sys.path if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
_kept: list[object] = []  # streams of the parent: closing them would write what is buffered once more


def _popen_or_fork(process: "subprocess.Popen[Any]", args: Any, *others: Any, **options: Any) -> None:
    if _is_litlab(args):  # called last before exec
        options["preexec_fn"] = partial(_become, args, options.get("env"), options.get("pass_fds", ()))
    _popen(process, args, *others, **options)


def _is_litlab(arguments: Any) -> bool:
    if not isinstance(arguments, (list, tuple)) or arguments[0] != sys.executable or "-m" not in arguments[:-1]:
        return False
    return str(arguments[arguments.index("-m") + 1]).partition(".")[0] == "litlab"


def _become(arguments: Sequence[str], environment: Mapping[str, str] | None, pass_fds: Sequence[int]) -> NoReturn:
    """Do in a new fork of this process what `python ARGUMENTS` does, and end."""
    gc.freeze()  # nothing of the parent is freed, and so closes a descriptor
    for descriptor in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
        if descriptor >= len(STREAMS) and descriptor not in pass_fds:
            with suppress(OSError):  # the one of the listing
                os.close(descriptor)
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):  # Popen restores their defaults; Python ignores them from its start
        signal.signal(signum, signal.SIG_IGN)
    for number, name in enumerate(STREAMS):
        _kept.append(getattr(sys, name))
        stream = open(number, "w" if number else "r", buffering=1, closefd=False)  # noqa: SIM115  (open to the end)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    variables = dict(os.environ if environment is None else environment)
    os.environ.pop("PYTHONPATH", None)  # none of its folders is in `_path`
    sys.path[:] = _path
    set_environment(variables)
    module = arguments.index("-m") + 1
    run_and_exit(partial(run_module, arguments[module], arguments[module + 1 :]))


subprocess.Popen.__init__ = _popen_or_fork  # type: ignore[method-assign, assignment]
