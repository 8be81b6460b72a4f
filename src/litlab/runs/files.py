"""Files that are either whole or not there."""

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

_TEMPORARY = ".tmp"


def write_atomic(
    path: Path, write: Callable[[BinaryIO], object], *, keep: Path | None = None, sync: bool = True
) -> None:
    """Let `write` fill a temporary file beside `path`, then put it there: fsync, rename, fsync of the directory.

    Args:
        path: where; there is a whole file all the time, if there was one.
        write: is given the temporary file.
        keep: becomes the name of the file that was at `path` before.
        sync: False for one of many files, for which the caller syncs once, before anybody relies on them.
    """
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            link(path, keep)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def link(source: Path, path: Path) -> None:
    """Make `path`, in the same directory, another name of the file at `source`, in place of what was there; atomic.

    Where the file system knows no second names, it becomes a copy.
    """
    temporary = _beside(path)
    try:
        os.link(source, temporary)
    except OSError:
        with source.open("rb") as file:
            write_atomic(path, lambda copy: shutil.copyfileobj(file, copy))
        return
    temporary.replace(path)  # if both are the same file already, this leaves `temporary` there
    temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sweep(directory: Path) -> None:
    """Remove what `write_atomic` in a killed process left in a directory that nobody writes into now."""
    for left_behind in directory.glob(f".*{_TEMPORARY}"):
        left_behind.unlink()


def _beside(path: Path) -> Path:
    """Not named after the file: to TensorBoard, whatever has `tfevents` in its name is one of its own."""
    return path.with_name(f".{os.getpid()}.{secrets.token_hex(6)}{_TEMPORARY}")


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()), sync=sync)


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Write JSON atomically. NaN and infinity are refused: no other reader would take them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", sync=sync)


def sync_directory(directory: Path) -> None:
    """Make the renames in a directory survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_if_empty(directory: Path) -> None:
    """Remove an empty directory, and then those of its parents inside the current one that this leaves empty."""
    here = Path.cwd()
    inside = [path for path in directory.parents if path.is_relative_to(here) and path != here]
    for path in (directory, *inside):
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # not empty, or not ours to remove
            return


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


def open_regular(file: Path) -> BinaryIO:
    """Open a file that may be untrusted for reading; anything but a regular file is refused.

    Opening a pipe without a writer would block forever.

    Raises:
        OSError: If it does not exist or is no regular file.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return os.fdopen(descriptor, "rb")
