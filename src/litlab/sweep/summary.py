"""What is said when a multirun has ended: counts, the best jobs, why others failed, and what to call next."""

import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from litlab.sweep.backend import Job
from litlab.sweep.outcome import FAILURES, Outcome

NUM_BEST = 3
NUM_FAILURES = 10  # shown in full


def summary(
    path: Path,
    jobs: Sequence[Job],
    outcomes: Mapping[int, Outcome],
    *,
    received: int | None,
    retries_failures: bool = True,
) -> list[str]:
    """The end of a multirun, line by line.

    Args:
        path: of the study.
        jobs: all that were asked for.
        outcomes: number of a job -> how it came out; a job that is not in it has not started.
        received: the signal that stopped the multirun, if one came.
        retries_failures: whether the same command would start failed jobs again.
    """
    ended = [(job, outcomes[job.number]) for job in jobs if job.number in outcomes]
    lines = ["", _counts(len(jobs), [outcome for _, outcome in ended], received)]
    lines += _best(ended) + _failures(ended)
    where = as_typed(path)
    lines += ["", f"study        {where}", f"jobs         litlab status {where}"]
    ends = ("done", "pruned", *(() if retries_failures else FAILURES))
    if sum(outcome.kind == "done" for _, outcome in ended) > 1:
        lines.append(f"compare      litlab compare {where}")
    if received is not None or len(ended) < len(jobs) or any(outcome.kind not in ends for _, outcome in ended):
        lines.append(f"continue     litlab resume {where}")
    return [*lines, f"TensorBoard  litlab tensorboard {where}"]


def headline(message: str) -> str:
    """A message on one line: what was raised, without the places in the code that stand above it."""
    lines = [line for line in message.splitlines() if line.strip()]
    if not lines:
        return ""
    return printable(lines[-1] if lines[0].lstrip().startswith('File "') else lines[0])


def number(metric: str, value: float) -> str:
    """A value of a metric as people read it."""
    return f"{100 * value:.2f} %" if "accuracy" in metric else f"{value:.4g}"


def printable(line: str) -> str:
    """A line without what would move the cursor or change colours."""
    return "".join(character if character.isprintable() else " " for character in line)


def as_typed(path: Path) -> Path:
    """A path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def _counts(num_jobs: int, outcomes: Sequence[Outcome], received: int | None) -> str:
    kinds = Counter(outcome.kind for outcome in outcomes)
    parts = [f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: item[0] != "done")]
    if num_jobs > len(outcomes):
        parts.append(f"{num_jobs - len(outcomes)} not started")
    stopped = f"stopped by {signal.Signals(received).name}: " if received else ""
    if num_jobs == 0:
        return f"{stopped}no job was started"
    return f"{stopped}{num_jobs} job{'s' * (num_jobs != 1)}: {', '.join(parts)}"


def _best(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    """The best by the objective, which is never of the test; of one job there is no best."""
    done = [
        (outcome.objective, job.name, job.config["objective"])
        for job, outcome in ended
        if outcome.kind == "done" and outcome.objective is not None and job.config.get("objective")
    ]
    if len(done) < 2:
        return []
    metric, mode = done[0][2]["metric"], done[0][2]["mode"]
    best = sorted(done, key=lambda each: each[0], reverse=mode == "max")[:NUM_BEST]
    values = [number(metric, value) for value, _, _ in best]
    widest = max(map(len, values))
    shown = [f"  {value.rjust(widest)}  {name}" for value, (_, name, _) in zip(values, best, strict=True)]
    return ["", f"best by {metric} ({mode})", *shown]


def _failures(ended: Sequence[tuple[Job, Outcome]]) -> list[str]:
    failed = [(job, outcome) for job, outcome in ended if outcome.is_failure]
    lines: list[str] = []
    for job, outcome in failed[:NUM_FAILURES]:
        lines += ["", f"{job.name}: {outcome.kind}"]
        lines += [f"  {printable(line)}" for line in outcome.message.splitlines()]
        lines += [f"  | {printable(line)}" for line in outcome.log]
    if len(failed) > NUM_FAILURES:
        names = ", ".join(job.name for job, _ in failed[NUM_FAILURES : NUM_FAILURES + 5])
        lines += ["", f"and {len(failed) - NUM_FAILURES} more: {names}{', ...' * (len(failed) > NUM_FAILURES + 5)}"]
    return lines
