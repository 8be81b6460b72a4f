"""The files of a run that grow: how long they were at a checkpoint, and back to that."""

import os
from pathlib import Path

APPENDED = ("metrics.csv", "events.out.tfevents.[1-9]*")  # one that begins with 0 is whole, and not appended to


def sizes(directory: Path) -> dict[str, int]:
    """File name -> bytes, which are on the disk from now on, whatever happens to the machine."""
    found = {}
    for path in _appended(directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            found[path.name] = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    return found


def cut_back(directory: Path, known: dict[str, int]) -> list[str]:
    """Cut the files back to what `sizes` returned, and remove those that came later. Returns what is lost."""
    lost = []
    for path in _appended(directory):
        size = path.stat().st_size
        if path.name not in known:
            path.unlink()
        elif size > known[path.name]:
            os.truncate(path, known[path.name])
        elif size < known[path.name]:
            lost.append(f"{path} has lost {known[path.name] - size} bytes since the checkpoint was saved")
    gone = [name for name in known if not (directory / name).exists()]
    return lost + [f"{directory / name} is gone" for name in gone]


def _appended(directory: Path) -> list[Path]:
    return sorted(path for pattern in APPENDED for path in directory.glob(pattern))
