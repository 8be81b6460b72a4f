"""How a job came out, in a word and a line, whatever its process did."""

import signal
from dataclasses import dataclass
from typing import Any

from litlab.errors import UserError
from litlab.process.failure import record_failure
from litlab.process.signals import STOP_SIGNALS, exit_code
from litlab.runs.lock import directory_lock, is_locked
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job, JobExit

LOG_LINES = 8
_LOG_BYTES = 1 << 14
_CRASH = "Fatal Python error"  # the first line of what faulthandler writes


@dataclass(frozen=True)
class Outcome:
    """
    Attributes:
        status: COMPLETED; PRUNED and INTERRUPTED if it was asked to stop; for failures what happened to the process:
            FAILED with an error or without a result, REFUSED by the data, KILLED, CRASHED, TIMED_OUT.
        message: why it failed, in words; empty for a job that is completed.
        log: the last lines of run.log, for a failure.
        result: what result.json holds; empty where it could not be read.
    """

    status: RunStatus
    message: str
    log: tuple[str, ...]
    result: dict[str, Any]
    seconds: float

    @property
    def is_failure(self) -> bool:
        return self.status.is_failure

    @property
    def objective(self) -> float | None:
        value = self.result.get("objective")
        return float(value) if isinstance(value, int | float) else None


def settle(ended: JobExit, *, asked: RunStatus | None = None) -> Outcome:
    """Say how a job came out, and write the result.json that its process could not.

    "Completed" is a result that says so, whatever the exit code: a user's code may call sys.exit(0), and a process whose
    work is complete may crash on its way out.

    Args:
        ended: what became of its process.
        asked: PRUNED or INTERRUPTED, if it was asked to stop for that.
    """
    job, result = ended.job, _result(ended.job)
    status = str(result.get("status", ""))
    if status == RunStatus.COMPLETED:
        return Outcome(RunStatus.COMPLETED, "", (), result, ended.seconds)
    if is_locked(job.run.path):
        return Outcome(RunStatus.INTERRUPTED, "another process is at work on it", (), {}, ended.seconds)
    kind, message = _told(ended, status, result, asked)
    if status == "" or (kind in (RunStatus.PRUNED, RunStatus.TIMED_OUT) and status == RunStatus.INTERRUPTED):
        message = _write(job, kind, message) or message
        result = _result(job)
    log = _end_of_log(job) if kind.is_failure else ()
    return Outcome(kind, message, log, result, ended.seconds)


def _write(job: Job, kind: RunStatus, message: str) -> str | None:
    """Write the end down, unless another worker has the run by now; then say that."""
    status = kind if kind in (RunStatus.INTERRUPTED, RunStatus.PRUNED) else RunStatus.FAILED
    try:
        with directory_lock(job.run.path, timeout=1.0):
            job.run.result.unlink(missing_ok=True)
            record_failure(job.run, job.config, status, message)
    except (UserError, OSError) as error:
        return str(error)
    return None


def _told(ended: JobExit, status: str, result: dict[str, Any], asked: RunStatus | None) -> tuple[RunStatus, str]:
    error = str(result.get("error") or "")
    if status == RunStatus.REFUSED:
        return RunStatus.REFUSED, error
    if status == RunStatus.FAILED:
        return RunStatus.FAILED, error
    if ended.timed_out:
        return RunStatus.TIMED_OUT, f"stopped after {ended.seconds:.0f} s, which is more than it was given"
    if asked == RunStatus.PRUNED:
        return RunStatus.PRUNED, "pruned: others were better by then"
    if status == RunStatus.INTERRUPTED:
        return RunStatus.INTERRUPTED, error
    if asked is not None:
        return asked, "stopped before it could save"
    if ended.code < 0:
        return _ended_by_signal(ended)
    if ended.code in map(exit_code, STOP_SIGNALS):
        return RunStatus.INTERRUPTED, "stopped while it started"
    if ended.code == 0:
        return RunStatus.FAILED, "ended with exit code 0 and no result: something called exit()"
    return RunStatus.FAILED, f"ended with exit code {ended.code} before it could say why"


def _ended_by_signal(ended: JobExit) -> tuple[RunStatus, str]:
    name = signal.Signals(-ended.code).name
    if name == "SIGKILL":
        how = "killed by the kernel for want of memory" if ended.out_of_memory else "killed by SIGKILL"
        return RunStatus.KILLED, how
    return RunStatus.CRASHED, f"crashed with {name}"


def _result(job: Job) -> dict[str, Any]:
    try:
        return read_result(job.run)
    except UserError:
        return {}


def _end_of_log(job: Job) -> tuple[str, ...]:
    """What it said last; of a crash the top, where it happened. The file may be torn, huge or not there."""
    try:
        with job.run.log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    lines = [line for line in lines if line.strip()]
    crashes = [number for number, line in enumerate(lines) if line.startswith(_CRASH)]
    return tuple(lines[crashes[-1] :][:LOG_LINES] if crashes else lines[-LOG_LINES:])
