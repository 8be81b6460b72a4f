"""The state of a run, read from its files while others write them; the files may be untrusted."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping, as_number
from litlab.runs.heartbeat import STALE_AFTER, STALLED_AFTER, Heartbeat, file_system_time, heartbeat_time
from litlab.runs.lock import LockOwner
from litlab.runs.metrics import MAX_COUNT, MetricsReader, Row, is_validation, split_of
from litlab.runs.terminal import format_clock

_NESTED_PHASES = ("training", "saving")  # of the seconds in result.json: parts of another phase


class RunStatus(StrEnum):
    """Status of a run, as it stands in result.json and as every command shows it.

    Attributes:
        QUEUED: No process has worked at it yet.
        RUNNING: Its process is alive.
        COMPLETED: All epochs and the test are complete.
        FAILED: It ended with an error.
        KILLED: Its process was ended by SIGKILL, for example when memory ran out.
        CRASHED: Its process was ended by another signal, such as a segmentation fault.
        TIMED_OUT: It was stopped at its time limit.
        INTERRUPTED: It was stopped by a signal, or its process ended without a result; it can be resumed.
        CANCELLED: Somebody cancelled it in the queue.
        LOST: Its node failed, it was preempted, or its process on another host no longer renews the heartbeat.
        DIVERGED: Its weights, its loss or its objective are no finite numbers any more.
        PRUNED: It was stopped by the search, since other trials were better.
        REFUSED: Its config or data were rejected before the training.
        UNKNOWN: Its result.json cannot be read, or does not say how it ended.
    """

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    INTERRUPTED = "interrupted"
    CANCELLED = "cancelled"
    LOST = "lost"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    REFUSED = "refused"
    UNKNOWN = "unknown"

    @property
    def label(self) -> str:
        """Status as it is printed: `timed out`."""
        return self.value.replace("_", " ")

    @property
    def is_failure(self) -> bool:
        """True if it ended without a result without being requested."""
        return self in _FAILURES

    @property
    def has_ended_training(self) -> bool:
        """True if it trained to its end, so that there is nothing to resume."""
        return self in (RunStatus.COMPLETED, RunStatus.DIVERGED)

    @property
    def is_final(self) -> bool:
        """True if no process works at it, or will without another command."""
        return self not in (RunStatus.QUEUED, RunStatus.RUNNING)


_FAILURES = frozenset(map(RunStatus, ("failed", "killed", "crashed", "timed_out", "lost", "diverged", "refused")))
_REPORTED = {status.value: status for status in RunStatus if status.is_final and status is not RunStatus.UNKNOWN}


@dataclass(frozen=True)
class Progress:
    """Progress of a run.

    Attributes:
        epoch: Current epoch, counted from 1; None before the first row.
        step: Optimizer steps so far.
        num_epochs: Number of epochs in total; None where nothing in the config limits them.
        fraction: Completed fraction of the training, 0 to 1; None where its length is not known.
        objective: Last value of the objective; None before the first.
    """

    epoch: int | None = None
    step: int = 0
    num_epochs: int | None = None
    fraction: float | None = None
    objective: float | None = None


@dataclass(frozen=True)
class RunState:
    """State of a run.

    Attributes:
        status: Status.
        message: Reason why it is not completed, or was completed before its limits; the first line is enough for a
            table.
        objective: Best value of a completed run, last value of another; None if there is none.
        seconds: Duration, of a running one so far; None if unknown.
        progress: Progress of a run that has begun and has no result; None for others.
    """

    status: RunStatus
    message: str = ""
    objective: float | None = None
    seconds: float | None = None
    progress: Progress | None = None


class ProgressReader:
    """Follow the progress of a run.

    Attributes:
        progress: Progress according to the rows read so far.
    """

    def __init__(self, run: RunDirectory, config: dict[str, Any]) -> None:
        """Prepare to read; nothing is read yet.

        Args:
            run: Directory of the run.
            config: Frozen config, which may be untrusted.
        """
        trainer, objective = as_mapping(config.get("trainer")), as_mapping(config.get("objective"))
        self._reader = MetricsReader(run.metrics)
        self._num_epochs, self._num_steps = _limit(trainer.get("max_epochs")), _limit(trainer.get("max_steps"))
        self._metric = objective.get("metric")
        self._start_over()

    def _start_over(self) -> None:
        is_limited = self._num_epochs is not None or self._num_steps is not None
        self._steps_per_epoch = 0.0
        self.progress = Progress(num_epochs=self._num_epochs, fraction=0.0 if is_limited else None)

    def read(self) -> list[Row]:
        """Read and return the new rows, and update the progress."""
        num_restarts = self._reader.num_restarts
        rows = self._reader.read()
        if self._reader.num_restarts > num_restarts:  # a resume truncated metrics.csv
            self._start_over()
        for row in rows:
            self._update(row)
        return rows

    def _update(self, row: Row) -> None:
        if split_of(row.metric) == "test":  # logged at the step of the checkpoint that was tested
            return
        if is_validation(row.metric):  # usually at the end of an epoch
            self._steps_per_epoch = max(self._steps_per_epoch, row.step / (row.epoch + 1))
        self.progress = Progress(
            epoch=row.epoch + 1,
            step=row.step,
            num_epochs=self._num_epochs,
            fraction=self._fraction(row),
            objective=row.value if row.metric == self._metric else self.progress.objective,
        )

    def _fraction(self, row: Row) -> float | None:
        """Compute the fraction by the limit that is reached first; within an epoch by the length of earlier ones."""
        fractions = []
        if self._num_steps:
            fractions.append(row.step / self._num_steps)
        if self._num_epochs:
            in_epoch = row.step / self._steps_per_epoch - row.epoch if self._steps_per_epoch else 0.0
            fractions.append((row.epoch + min(max(in_epoch, 0.0), 1.0)) / self._num_epochs)
        return min(max(fractions), 1.0) if fractions else None


def read_state(run: RunDirectory) -> RunState:
    """Read the state of a run. Files that are damaged or cannot be read are reported in the message."""
    try:
        return _read_state(run)
    except OSError as error:
        return RunState(RunStatus.UNKNOWN, f"{error.filename or run.path}: {error.strerror}")


def _read_state(run: RunDirectory) -> RunState:
    try:
        return state_from_result(run.read_json(run.result))
    except UserError as error:
        if run.result.exists():
            return RunState(RunStatus.UNKNOWN, str(error))
    owner = LockOwner.read(run.path)
    if owner is not None and (not owner.is_local or owner.is_alive()):
        return _owned(run, owner)
    if run.metrics.exists() or run.checkpoints.exists():
        return _unfinished(run, RunStatus.INTERRUPTED, "its process is gone", None)
    return RunState(RunStatus.QUEUED)


def _owned(run: RunDirectory, owner: LockOwner) -> RunState:
    """Return the state of a run whose owner is alive, or on another host."""
    now = file_system_time(run.path)
    renewed = heartbeat_time(run)
    if renewed is None or renewed < owner.since:  # none yet, or that of an earlier process
        renewed, beat = owner.since, None
    else:
        beat = Heartbeat.read(run)
    silence, message = now - renewed, ""
    if silence > STALE_AFTER and not owner.is_local:
        return _unfinished(run, RunStatus.LOST, f"no heartbeat from {owner} for {format_clock(silence)}", None)
    if beat is not None and silence > STALE_AFTER:
        message = f"no heartbeat for {format_clock(silence)}"
    elif beat is not None and renewed - beat.time > STALLED_AFTER:
        message = f"no progress for {format_clock(renewed - beat.time)}"
    return _unfinished(run, RunStatus.RUNNING, message, max(now - owner.since, 0.0))


def _unfinished(run: RunDirectory, status: RunStatus, message: str, seconds: float | None) -> RunState:
    try:
        reader = ProgressReader(run, run.read_config())
        reader.read()
    except (UserError, OSError) as error:
        return RunState(status, str(error), None, seconds)
    return RunState(status, message, reader.progress.objective, seconds, reader.progress)


def state_from_result(result: Any) -> RunState:
    """Return the state of a run that has ended.

    Args:
        result: Content of its result.json, which may be untrusted.
    """
    content = as_mapping(result)
    status = _REPORTED.get(_text(content.get("status")))
    if status is None:
        return RunState(RunStatus.UNKNOWN, "result.json does not say how it ended")
    seconds = [
        number
        for name, value in as_mapping(content.get("seconds")).items()
        if name not in _NESTED_PHASES and (number := as_number(value)) is not None
    ]
    message = _text(content.get("stop_reason" if status is RunStatus.COMPLETED else "error"))
    return RunState(status, message, as_number(content.get("objective")), sum(seconds) if seconds else None)


def _limit(value: Any) -> int | None:
    """Return a limit of the Trainer; null and -1 mean none."""
    return value if isinstance(value, int) and 0 < value < MAX_COUNT else None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""  # other values may be too deeply nested to be formatted
