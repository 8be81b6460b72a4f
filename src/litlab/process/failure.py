"""Failures of a run, written to result.json and run.log. No torch."""

import errno
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

from litlab.config.identity import identity
from litlab.runs.directory import RunDirectory
from litlab.runs.redact import redact
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.runs.terminal import display_path
from litlab.tensorboard_session import end_session

FIRST_LOSS = ", and as the loss of the first step already"  # end of the reason why a run diverged
_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def record_failure(run: RunDirectory, config: dict[str, Any], status: RunStatus, error: str) -> None:
    """Write the result.json of a run that did not complete, unless it has one: the first to fail knows the cause.

    Args:
        run: The run directory.
        config: Its frozen config.
        status: How it ended.
        error: Why, for the user. Printed if it can't be written.
    """
    if run.result.exists():
        return
    error = redact(error)
    result = Result(status=status, identity=identity(config), error=error)
    end_session(run, config, result)
    try:
        write_result(run, result)
    except OSError as failure:
        print(f"litlab: {error}\nlitlab: {run.result} cannot be written: {failure.strerror}", file=sys.stderr)


def resume_command(run: RunDirectory) -> str:
    """Return the command that continues a run."""
    return shlex.join(["litlab", "resume", str(display_path(run.path))])


def log_traceback(run: RunDirectory) -> None:
    """Append the traceback of the current exception to run.log."""
    try:
        with run.log.open("ab", buffering=0) as log:  # or what can't be written would be tried again at exit
            log.write(redact(traceback.format_exc()).encode())
    except OSError as failure:
        print(f"litlab: {run.log} cannot be written: {failure.strerror}", file=sys.stderr)


def describe_error(error: Exception, run: RunDirectory) -> str:
    """Return the message of an exception, after those lines of its traceback that are in the user's own code."""
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        hint = "; the checkpoints saved so far are whole: make room, then litlab resume" if run.last.exists() else ""
        return f"{error.filename or run.path} cannot be written: {error.strerror}{hint}"
    foreign = (str(Path(__file__).parents[1]), "<", sys.prefix, sys.base_prefix)  # litlab, generated code, libraries
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(foreign) and "site-packages" not in frame.filename
    ]
    return "".join([*traceback.format_list(frames), *traceback.format_exception_only(error)]).strip()
