"""Append-only files of a run, truncated on resume to their lengths at the checkpoint."""

import os
from pathlib import Path

_APPENDED = ("metrics.csv", "events.out.tfevents.[1-9]*")  # event files that begin with 0 are replaced as a whole


def appended_lengths(directory: Path) -> dict[str, int]:
    """Return the length in bytes of each append-only file of a run, for `truncate_appended`."""
    return {path.name: path.stat().st_size for path in _appended(directory)}


def sync_appended(directory: Path) -> None:
    """Sync the append-only files of a run."""
    for path in _appended(directory):
        with path.open("rb") as file:
            os.fsync(file.fileno())


def truncate_appended(directory: Path, lengths: dict[str, int]) -> list[str]:
    """Truncate the append-only files of a run to their lengths at a checkpoint; remove those that are newer.

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
    return sorted(path for pattern in _APPENDED for path in directory.glob(pattern))
