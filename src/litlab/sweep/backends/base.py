"""Where the jobs of a study run: submit, wait, cancel. The local pool is one such place, a cluster's queue another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from litlab.runs.directory import RunDirectory

Config = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A run directory that is ready for a worker.

    Attributes:
        number: in its study.
        config: as its config.yaml has it.
    """

    number: int
    run: RunDirectory
    config: Config

    @property
    def name(self) -> str:
        return self.run.path.name


@dataclass(frozen=True)
class Ended:
    """How the process of a job ended.

    Attributes:
        code: its exit code; negative for the signal that ended it.
        seconds: since it was submitted to a device.
        timed_out: whether it was ended since it took too long.
        out_of_memory: whether the kernel has just ended processes for want of memory.
    """

    job: Job
    code: int
    seconds: float
    timed_out: bool = False
    out_of_memory: bool = False


class Backend(Protocol):
    """Runs workers on run directories. All calls come from one thread, none within another (no signal handler)."""

    def check(self, configs: Sequence[Config]) -> None:
        """Say what can never run here, before anything starts.

        Raises:
            UserError: with a line for each reason.
        """

    def threads(self, config: Config, num_jobs: int) -> int | None:
        """The number of threads of a process of this job where the config leaves it open; None if the worker counts."""

    def has_room(self, config: Config) -> bool:
        """Whether a job of this config would start at once."""

    def submit(self, job: Job) -> None:
        """Start a job. There has to be room for it."""

    def wait(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since the last call; waits so long for one."""

    def cancel(self, job: Job, signum: int) -> None:
        """Ask a job to save and stop; with SIGKILL, end it and all its processes. Nothing happens if it has ended."""

    def pause(self) -> None:
        """Stop all processes of all jobs where they are; until `go_on`, no time counts and nothing is submitted."""

    def go_on(self) -> None:
        """Let what is paused go on."""

    def close(self) -> None:
        """End whatever still runs, and free what is held."""
