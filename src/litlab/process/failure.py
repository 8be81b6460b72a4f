"""How a run ended, written down and said; whoever finds out calls this. No torch."""

import errno
import sys
import traceback
from pathlib import Path
from typing import Any

from litlab.config.freeze import identity
from litlab.runs.directory import RunDirectory
from litlab.runs.redact import redact
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.tensorboard import end_session

_CANNOT_WRITE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)


def write_end(run: RunDirectory, config: dict[str, Any], status: RunStatus, error: str) -> None:
    """Write result.json, unless somebody has: the first to fail knows the cause. Where that fails, say both."""
    if run.result.exists():
        return
    error = redact(error)
    result = Result(status=status, identity=identity(config), error=error)
    end_session(run, config, result)
    try:
        write_result(run, result)
    except OSError as failure:
        print(f"litlab: {error}\nlitlab: {run.result} cannot be written: {failure.strerror}", file=sys.stderr)


def log_traceback(run: RunDirectory) -> None:
    """The whole of the current error, for run.log; if even that can't be written, what is said has to do."""
    try:
        with run.log.open("ab", buffering=0) as log:  # or what can't be written would be tried again at exit
            log.write(redact(traceback.format_exc()).encode())
    except OSError as failure:
        print(f"litlab: {run.log} cannot be written: {failure.strerror}", file=sys.stderr)


def in_users_words(error: Exception, run: RunDirectory) -> str:
    """The error with the frames of the user's own code: not ours, and no library's."""
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        where = error.filename or run.path
        saved = "; the checkpoints saved so far are whole: make room, then litlab resume" if run.last.exists() else ""
        return f"{where} cannot be written: {error.strerror}{saved}"
    own = str(Path(__file__).parents[1])
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((own, "<")) and "site-packages" not in f.filename]
    theirs = [f for f in theirs if not f.filename.startswith((sys.prefix, sys.base_prefix))]
    said = "".join(traceback.format_exception_only(error)).strip()
    return said if not theirs else "".join(traceback.format_list(theirs)).rstrip() + "\n" + said
