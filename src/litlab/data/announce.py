"""Saying that something long begins, before there is a run's own console."""

import logging

_log = logging.getLogger(__name__)


def announce(line: str) -> None:
    """One line to the terminal and to the log. For work under a lock: one process does it, so one speaks."""
    _log.info(line)
    print(line, flush=True)
