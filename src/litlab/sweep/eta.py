"""Estimated time until the jobs of a multirun have ended."""

from collections.abc import Sequence
from statistics import mean

_MIN_FRACTION = 0.05  # of a job that has to be done before its pace is meaningful


def job_eta(seconds: float, start_fraction: float | None, fraction: float | None) -> float | None:
    """Estimate the remaining seconds of a job from its pace.

    Args:
        seconds: Seconds that it has run.
        start_fraction: Fraction of the job that was done when it was started, more than 0 for a resumed one.
        fraction: Fraction that is done now.

    Returns:
        Seconds; None as long as the pace is not known.
    """
    if start_fraction is None or fraction is None or fraction - start_fraction < _MIN_FRACTION:
        return None
    return seconds * (1 - fraction) / (fraction - start_fraction)


def multirun_eta(
    durations: Sequence[float], running: Sequence[tuple[float, float | None]], num_queued: int, num_slots: int
) -> float | None:
    """Estimate the seconds until all jobs have ended.

    Args:
        durations: Seconds that the finished jobs took.
        running: Seconds so far and `job_eta` of each running job.
        num_queued: Number of jobs that have not started.
        num_slots: Number of jobs that run at once.

    Returns:
        Seconds; None as long as the duration of no job is known.
    """
    known = [*durations, *(seconds + remaining for seconds, remaining in running if remaining is not None)]
    if not known:
        return None
    average = mean(known)
    etas = [max(average - seconds, 0.0) if remaining is None else remaining for seconds, remaining in running]
    return max([*etas, (sum(etas) + num_queued * average) / max(num_slots, 1)])
