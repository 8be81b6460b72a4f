"""Append-only files of a run, metrics.csv and event files, which a resume truncates to their length at a checkpoint."""

import os
from pathlib import Path

_PATTERNS = ("metrics.csv", "events.out.tfevents.[1-9]*")  # event files that begin with 0 are replaced as a whole


def sync_appended(directory: Path) -> dict[str, int]:
    """Sync the append-only files of a run directory to the disk.

    Returns:
        Length of each file in bytes, for `truncate_appended`.
    """
    lengths = {}
    for path in _appended(directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            lengths[path.name] = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    return lengths


def truncate_appended(directory: Path, lengths: dict[str, int]) -> list[str]:
    """Truncate the append-only files to their lengths at a checkpoint; remove those that are newer.

    Args:
        directory: Run directory.
        lengths: Length of each file, from `sync_appended`.

    Returns:
        Warnings about files that are shorter, or gone.
    """
    warnings = []
    for path in _appended(directory):
        size = path.stat().st_size
        if path.name not in lengths:
            path.unlink()
        elif size > lengths[path.name]:
            os.truncate(path, lengths[path.name])
        elif size < lengths[path.name]:
            warnings.append(f"{path} has lost {lengths[path.name] - size} bytes since the checkpoint was saved")
    missing = [name for name in lengths if not (directory / name).exists()]
    return warnings + [f"{directory / name} is gone" for name in missing]


def _appended(directory: Path) -> list[Path]:
    return sorted(path for pattern in _PATTERNS for path in directory.glob(pattern))
