"""Outcome of a job: its final status with a reason, whatever happened to its process."""

import signal
from dataclasses import dataclass
from typing import Any

from litlab.errors import InUseError, UserError
from litlab.process.failure import record_failure
from litlab.process.signals import STOP_SIGNALS, exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.result import is_completed, read_result
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import ExitCause, Job, JobExit

LOG_LINES = 8
_LOG_BYTES = 1 << 14
_CRASH = "Fatal Python error"  # first line of faulthandler's report
_STATUSES = {status.value: status for status in RunStatus}


@dataclass(frozen=True)
class Outcome:
    """Outcome of a job.

    Attributes:
        message: Reason of the status; empty for a completed job.
        log: Last lines of run.log, for a failure whose message does not say all.
        result: Contents of result.json; empty if it can't be read.
        seconds: Duration; 0 if nobody waited for the job.
    """

    status: RunStatus
    message: str
    log: tuple[str, ...]
    result: dict[str, Any]
    seconds: float

    @property
    def is_failure(self) -> bool:
        """True if the job ended without a result without being requested."""
        return self.status.is_failure

    @property
    def is_success(self) -> bool:
        """True if the job is completed, or was pruned by the search."""
        return self.status in (RunStatus.COMPLETED, RunStatus.PRUNED)

    @property
    def objective(self) -> float | None:
        """Value of the objective; None if there is none."""
        value = self.result.get("objective")
        return float(value) if isinstance(value, int | float) else None


def determine_outcome(job_exit: JobExit, *, requested: RunStatus | None = None) -> Outcome:
    """Determine the outcome of a job, and write the result.json that its process could not write.

    A job is completed if its result says so, whatever the exit code: user code may call sys.exit(0), and a process may
    crash on its way out after its work is complete.

    Args:
        job_exit: End of its process.
        requested: PRUNED or INTERRUPTED if the scheduler asked the job to stop for that reason.
    """
    job, seconds = job_exit.job, job_exit.seconds
    result = _read_result(job.run)
    reported = _STATUSES.get(str(result.get("status")))
    if reported == RunStatus.COMPLETED:
        return Outcome(reported, "", (), result, seconds)
    in_use = Outcome(RunStatus.INTERRUPTED, "another process is at work on it", (), {}, seconds)
    if job_exit.code == InUseError.exit_code:
        return in_use
    status, message = _classify(job_exit, reported, str(result.get("error") or ""), requested)
    if status != reported:
        try:
            _write_result(job, status, message)
        except InUseError:
            if status != RunStatus.LOST:
                return in_use
        except OSError as error:
            message = str(error)
        result = _read_result(job.run)
        if is_completed(job.run):  # by another process
            return Outcome(RunStatus.COMPLETED, "", (), result, seconds)
    log = _last_log_lines(job.run) if status.is_failure and status is not RunStatus.DIVERGED else ()
    return Outcome(status, message, log, result, seconds)


def read_outcome(run: RunDirectory) -> Outcome | None:
    """Read the outcome of a job that nobody waited for; None if it has to be resumed, as a lost one has."""
    result = _read_result(run)
    status = _STATUSES.get(str(result.get("status")), RunStatus.UNKNOWN)
    outcome = Outcome(status, str(result.get("error") or ""), (), result, 0.0)
    return outcome if outcome.is_success or (outcome.is_failure and status != RunStatus.LOST) else None


def _classify(
    job_exit: JobExit, reported: RunStatus | None, error: str, requested: RunStatus | None
) -> tuple[RunStatus, str]:
    """Return the status of a job that is not completed, and the reason."""
    code, cause = job_exit.code, job_exit.cause
    if cause is ExitCause.LOST and requested is None and reported != RunStatus.REFUSED:
        return RunStatus.LOST, "lost: its node failed or it was preempted"
    if reported is not None and reported.is_failure:
        return reported, error
    if cause is ExitCause.CANCELLED and requested is None:
        return RunStatus.CANCELLED, "cancelled in the queue"
    if cause is ExitCause.TIMED_OUT:
        return RunStatus.TIMED_OUT, f"stopped after {job_exit.seconds:.0f} s, longer than `hydra.launcher.timeout`"
    if requested == RunStatus.PRUNED:
        return requested, "pruned: other trials were better at this point"
    if reported == RunStatus.INTERRUPTED:
        return reported, error
    if requested is not None:
        return requested, "stopped before it could save"
    if code == -signal.SIGKILL:
        is_out_of_memory = cause is ExitCause.OUT_OF_MEMORY
        return RunStatus.KILLED, "killed by the kernel: out of memory" if is_out_of_memory else "killed by SIGKILL"
    if code < 0:
        return RunStatus.CRASHED, f"crashed with {signal.Signals(-code).name}"
    if code in map(exit_code, STOP_SIGNALS):
        return RunStatus.INTERRUPTED, "stopped while it started"
    if code == 0:
        return RunStatus.FAILED, "ended with exit code 0 and no result: the code called exit()"
    return RunStatus.FAILED, f"ended with exit code {code} without a result"


def _write_result(job: Job, status: RunStatus, message: str) -> None:
    """Write result.json, unless the run is completed by now.

    Raises:
        InUseError: If another process is at work on the run by now.
        OSError: If it can't be written.
    """
    with directory_lock(job.run.path, timeout=1.0):
        if not is_completed(job.run):
            job.run.result.unlink(missing_ok=True)
            record_failure(job.run, job.config, status, message)


def _read_result(run: RunDirectory) -> dict[str, Any]:
    try:
        return read_result(run)
    except UserError:
        return {}


def _last_log_lines(run: RunDirectory) -> tuple[str, ...]:
    """Read the end of run.log; after a crash, the top of the traceback. The file may be torn, huge or missing."""
    try:
        with run.log.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(0, size - _LOG_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    lines = [line for line in lines if line.strip()]
    crashes = [number for number, line in enumerate(lines) if line.startswith(_CRASH)]
    return tuple(lines[crashes[-1] :][:LOG_LINES] if crashes else lines[-LOG_LINES:])
