"""Interface of the backends that run the jobs of a study.

The local pool runs them on the devices of this machine. A queue of a cluster (SLURM, Ray) implements the same protocol:
`submit` hands a job to the queue, `has_capacity` limits how many are in it, `poll` reports those that have ended, and
`is_alive` and `attach` let a command find the jobs again that an earlier one has submitted.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

from litlab.runs.directory import RunDirectory

Config = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run directory that is ready for a worker, with its number in the study and its frozen config."""

    number: int
    run: RunDirectory
    config: Config

    @property
    def name(self) -> str:
        """Name of the run directory."""
        return self.run.path.name


class ExitCause(Enum):
    """Cause of a job's end that its exit code does not tell.

    Attributes:
        TIMED_OUT: The backend ended it because it took too long.
        OUT_OF_MEMORY: The kernel ended processes for lack of memory at that time.
        CANCELLED: Somebody cancelled it; it is not started again.
        LOST: Its node failed, or it was preempted; it is started again, which costs no retry.
    """

    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(frozen=True)
class JobExit:
    """End of the process of a job.

    Attributes:
        code: Exit code; the negative number of the signal that ended the process.
        seconds: Seconds since the job was submitted to a device.
        cause: Cause, where the backend knows more than the exit code.
    """

    job: Job
    code: int
    seconds: float
    cause: ExitCause | None = None


class Backend(Protocol):
    """Runs workers on run directories.

    All calls come from one thread, none within another (not from a signal handler).

    Attributes:
        outlives_command: True if its jobs go on when the command that submitted them ends; `attach` takes them up.
        detaches: True if the command is to end as soon as all jobs are submitted.
        grace_seconds: Seconds to save and end in, for a job that was cancelled.
        max_parallel: Maximum number of jobs that run at once; None for as many as there are devices for.
    """

    outlives_command: bool
    detaches: bool
    grace_seconds: float
    max_parallel: int | None

    def start(self) -> None:
        """Start what the backend needs to run jobs, without waiting until it is ready."""

    def check(self, configs: Sequence[Config], *, dry_run: bool = False) -> None:
        """Check that jobs with these configs can run here.

        Args:
            configs: Frozen configs.
            dry_run: Start nothing; check only what can be known then.

        Raises:
            UserError: With a line for each reason.
        """

    def threads(self, config: Config, num_jobs: int) -> int | None:
        """Return the number of threads for a process of a job whose config leaves it open; None to let it count.

        Args:
            config: Frozen config of the job.
            num_jobs: Number of such jobs.
        """

    def has_capacity(self, config: Config) -> bool:
        """Return True if a job with this config may be submitted now."""

    def submit(self, job: Job) -> None:
        """Start or enqueue a job; requires capacity for it."""

    def is_alive(self, job: Job) -> bool:
        """Return True if the job is queued or running, also one that an earlier command has submitted."""

    def attach(self, job: Job) -> None:
        """Watch a job that is alive, so that `poll` reports its end."""

    def queued(self) -> dict[int, str]:
        """Return the jobs that were submitted and wait for devices: number -> reason, empty if it is not known."""

    def queued_runs(self) -> dict[Path, str]:
        """Return the runs of the study that wait in the queue, whoever submitted them: directory -> reason.

        Raises:
            UserError: If that can't be found out.
        """

    def poll(self, timeout: float) -> list[JobExit]:
        """Return the jobs that have ended since the last call.

        Args:
            timeout: Seconds to wait for the first one.
        """

    def cancel(self, job: Job, signum: int) -> None:
        """Ask a job to save and stop; with SIGKILL, end it and all its processes. A job that has ended is ignored."""

    def pause(self) -> None:
        """Stop all processes of all jobs until `resume`; meanwhile no timeout counts and nothing is submitted."""

    def resume(self) -> None:
        """Continue the paused jobs."""

    def how_to_cancel(self) -> str:
        """Return the command that cancels all jobs that `close` leaves to run; empty if it leaves none."""

    def close(self) -> None:
        """Release all resources; end what still runs, unless the jobs outlive the command."""
