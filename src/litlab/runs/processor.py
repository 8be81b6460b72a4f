"""Facts about the processor, without torch: its name, its features, and the cores that this process may use."""

import math
import os
import platform
import re
from pathlib import Path

_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}  # flags of x86 and ARM in /proc/cpuinfo
_QUOTA_FILES = {2: ("cpu.max",), 1: ("cpu.cfs_quota_us", "cpu.cfs_period_us")}  # by version of control groups


def processor_name(root: Path = Path("/")) -> str:
    """Return the name of the processor; if the system does not tell it, that of the architecture."""
    return _read_cpuinfo(root, "model name") or platform.processor() or platform.machine()


def multiplies_bfloat16(root: Path = Path("/")) -> bool:
    """Return True if the processor has instructions that multiply in bfloat16; False where the system does not tell.

    torch also computes in bfloat16 without them, in more than twice the time of float32, and its
    `torch.ops.mkldnn._is_mkldnn_bf16_supported` does not tell the two apart.
    """
    flags = _read_cpuinfo(root, "flags") or _read_cpuinfo(root, "Features")
    return not _BFLOAT16.isdisjoint(flags.split())


def _read_cpuinfo(root: Path, field: str) -> str:
    """Return a field of the first core in /proc/cpuinfo; empty if it is not there."""
    try:
        text = (root / "proc/cpuinfo").read_text()
    except OSError:  # no Linux
        return ""
    match = re.search(rf"^{field}\s*:\s*(.+)$", text, re.MULTILINE)
    return match[1] if match else ""


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
