"""Whether the kernel has ended processes for want of memory of late."""

import time
from math import inf
from pathlib import Path

RECENT = 3.0  # seconds
COUNTS = Path("/proc/vmstat")


class Shortage:
    """Of memory, on the whole machine. To be looked at often: it takes a new one for as old as the last look."""

    def __init__(self) -> None:
        self._kills = _kills()
        self._seen = -inf

    def look(self) -> None:
        kills = _kills()
        if kills > self._kills:
            self._seen = time.monotonic()
        self._kills = kills

    def is_recent(self) -> bool:
        self.look()
        return time.monotonic() - self._seen < RECENT


def _kills() -> int:
    """How many processes this kernel has ended for want of memory; 0 where it does not say."""
    try:
        lines = COUNTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
