"""Number of CPU cores that a process may use: by its affinity, and by the quotas of its control groups."""

import math
import os
from pathlib import Path

_QUOTA_FILES = {2: ("cpu.max",), 1: ("cpu.cfs_quota_us", "cpu.cfs_period_us")}  # by version of control groups


def num_cores(root: Path = Path("/")) -> int:
    """Return the number of CPU cores that this process may use; a quota of 1.5 cores counts as 2.

    Args:
        root: Folder of `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cgroup_quota(root))))


def _cgroup_quota(root: Path) -> float:
    """Return the smallest quota of this process's control groups and those above them, in cores; infinity without any.

    A container may see its group at the mount point, and none above it, although /proc names the whole path.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # no Linux
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mount, version = root / "sys/fs/cgroup" / controllers, 1 if controllers else 2
        group = mount / path.lstrip("/")
        folders = (folder for folder in (group, *group.parents) if folder.is_relative_to(mount))
        quotas += [_read_quota(folder, _QUOTA_FILES[version]) for folder in folders]
    return min(quotas)


def _read_quota(folder: Path, files: tuple[str, ...]) -> float:
    try:
        quota, period = " ".join((folder / name).read_text() for name in files).split()
        return float(quota) / float(period) if float(quota) > 0 else math.inf  # -1 stands for none
    except (OSError, ValueError, ZeroDivisionError):  # no such file; `max`
        return math.inf
