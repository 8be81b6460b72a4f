"""Summaries of a multirun: the jobs that a dry run finds; at the end counts, best jobs, failures, next commands."""

import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from litlab.config.ablation_changes import ABLATION
from litlab.config.tree import get
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metric_table
from litlab.runs.redact import mask_command
from litlab.runs.state import RunStatus, read_state
from litlab.runs.terminal import display_path, printable
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome
from litlab.sweep.study import Study

if TYPE_CHECKING:
    from litlab.config.job_configs import ComposedJob

NUM_BEST = 3
NUM_FAILURES = 10  # shown in full


def format_jobs(study: Study, jobs: Sequence["ComposedJob"]) -> list[str]:
    """Format a line for each distinct job of a dry run (directory, status, what varies), and a line with the counts."""
    recorded = study.known_jobs
    statuses = [
        read_state(RunDirectory(study.path / job.directory)).status.label if job.identity in recorded else "new"
        for job in jobs
    ]
    width = max((len(job.directory) for job in jobs), default=0)
    lines = []
    for job, status in zip(jobs, statuses, strict=True):
        point = " ".join(mask_command([f"{key}={value}" for key, value in job.point.items()]))
        lines.append(f"{job.directory:{width}}  {status:11}  {point}".rstrip())
    counts = ", ".join(f"{count} {status}" for status, count in Counter(statuses).items())
    return [*lines, "", f"{len(jobs)} jobs ({counts}) in {display_path(study.path)}; nothing was started or written"]


def summarize(
    path: Path,
    jobs: Sequence[Job],
    outcomes: Mapping[int, Outcome],
    *,
    signum: int | None,
    retries_failures: bool = True,
    cancel_command: str = "",
    is_over: bool | None = None,
) -> list[str]:
    """Summarize a multirun, line by line.

    Args:
        path: Directory of the study.
        jobs: All jobs of the command.
        outcomes: Outcome by number of the job; a job without one has not started.
        signum: Signal that stopped the multirun; None if none came.
        retries_failures: True if the same command would start failed jobs again.
        is_over: False if more jobs are to come; None if the jobs tell.
        cancel_command: Command that cancels the jobs that go on without this command; empty if there are none.
    """
    ended = [(job, outcomes[job.number]) for job in jobs if job.number in outcomes]
    counts = _counts(len(jobs), [outcome for _, outcome in ended], signum, is_detached=bool(cancel_command))
    lines = ["", counts, *_best(ended), *_failures(ended)]
    shown = display_path(path)
    lines += ["", f"study        {shown}", f"jobs         litlab status {shown}"]
    if sum(outcome.status == RunStatus.COMPLETED for _, outcome in ended) > 1:
        is_ablation = any(get(job.config, ABLATION) is not None for job in jobs)
        lines.append(f"compare      litlab compare {shown}{' --ablation' * is_ablation}")
    resumable = [outcome for _, outcome in ended if not (outcome.is_success or outcome.status.has_ended_training)]
    has_unfinished = len(ended) < len(jobs) or any(retries_failures or not outcome.is_failure for outcome in resumable)
    if is_over is False or (is_over is None and (signum is not None or has_unfinished)):
        lines.append(f"continue     litlab resume {shown}")
    if cancel_command:
        lines.append(f"cancel       {cancel_command}")
    return [*lines, f"TensorBoard  litlab tensorboard {shown}"]


def _counts(num_jobs: int, outcomes: Sequence[Outcome], signum: int | None, *, is_detached: bool) -> str:
    counts = Counter(outcome.status for outcome in outcomes)
    statuses = sorted(counts, key=lambda status: status != RunStatus.COMPLETED)
    parts = [f"{counts[status]} {status.label}" for status in statuses]
    if num_jobs > len(outcomes):
        parts.append(f"{num_jobs - len(outcomes)} {'go on in the queue' if is_detached else 'not started'}")
    stopped = f"{'detached' if is_detached else 'stopped'} by {signal.Signals(signum).name}: " if signum else ""
    if num_jobs == 0:
        return f"{stopped}no job was started"
    return f"{stopped}{num_jobs} job{'s' * (num_jobs != 1)}: {', '.join(parts)}"


def _best(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    """List the best jobs by the objective, which is never of the test split; nothing for a single job."""
    ranked = [
        (outcome.objective, job)
        for job, outcome in ended
        if outcome.status == RunStatus.COMPLETED and outcome.objective is not None and job.config.get("objective")
    ]
    if len(ranked) < 2:
        return []
    metric, mode = (ranked[0][1].config["objective"][key] for key in ("metric", "mode"))
    ranked = sorted(ranked, key=lambda pair: pair[0], reverse=mode == "max")[:NUM_BEST]
    values = [read_metric_table(job.run)[metric].format(value) for value, job in ranked]
    width = max(map(len, values))
    lines = [f"  {value.rjust(width)}  {job.name}" for value, (_, job) in zip(values, ranked, strict=True)]
    return ["", f"best by {metric} ({mode})", *lines]


def _failures(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    failures = [(job, outcome) for job, outcome in ended if outcome.is_failure]
    lines: list[str] = []
    for job, outcome in failures[:NUM_FAILURES]:
        lines += ["", f"{job.name}: {outcome.status.label}"]
        lines += [f"  {printable(line)}" for line in outcome.message.splitlines()]
        lines += [f"  | {printable(line)}" for line in outcome.log]
    if len(failures) > NUM_FAILURES:
        names = ", ".join(job.name for job, _ in failures[NUM_FAILURES : NUM_FAILURES + 5])
        more = ", ..." if len(failures) > NUM_FAILURES + 5 else ""
        lines += ["", f"and {len(failures) - NUM_FAILURES} more: {names}{more}"]
    return lines
