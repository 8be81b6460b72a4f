"""How long the rest of a study will take, guessed from what has ended and what runs."""

from collections.abc import Sequence
from statistics import mean

_TELLING = 0.05  # fraction of a job from which on its pace says something


def rest(seconds: float, before: float | None, fraction: float | None) -> float | None:
    """Seconds that a job needs if it goes on at its pace; None as long as that says nothing.

    Args:
        seconds: that it has run.
        before: fraction of it that was done when it was started, more than 0 if it was continued.
        fraction: that is done now.
    """
    if before is None or fraction is None or fraction - before < _TELLING:
        return None
    return seconds * (1 - fraction) / (fraction - before)


def seconds_left(
    finished: Sequence[float], running: Sequence[tuple[float, float | None]], num_waiting: int, num_places: int
) -> float | None:
    """Seconds until all jobs have ended; None as long as no job says anything about it.

    Args:
        finished: seconds that jobs took.
        running: for each job that runs, its seconds so far and its `rest`.
        num_waiting: jobs that have not started.
        num_places: how many jobs run at once.
    """
    known = [*finished, *(seconds + left for seconds, left in running if left is not None)]
    if not known:
        return None
    usual = mean(known)
    rests = [max(usual - seconds, 0.0) if left is None else left for seconds, left in running]
    return max([*rests, (sum(rests) + num_waiting * usual) / max(num_places, 1)])


def duration(seconds: float) -> str:
    """As `clock` has it; below a second `0.4 s`."""
    return f"{seconds:.1g} s" if 0 < seconds < 0.95 else clock(seconds)


def clock(seconds: float | None) -> str:
    """Seconds as m:ss or h:mm:ss; "-" where they are not known."""
    if seconds is None:
        return "-"
    minutes, rest_of_minute = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_of_minute:02}" if hours else f"{minutes}:{rest_of_minute:02}"
