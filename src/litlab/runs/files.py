"""File operations that survive a crash, a power cut or an untrusted file."""

import errno
import fcntl
import json
import math
import os
import secrets
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, BinaryIO

_TEMPORARY = ".tmp"
_LARGEST = 1e300  # leaves room for sums and differences
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)  # of fsync for a directory
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def write_atomic(
    path: Path, write: Callable[[BinaryIO], object], *, keep: Path | None = None, sync: bool = True
) -> None:
    """Write a temporary file beside `path`, then put it in place: fsync, rename, fsync of the directory.

    If there was a file at `path`, there is a complete one at every moment.

    Args:
        path: Path of the file.
        write: Function that gets the temporary file and fills it.
        keep: New name of the file that was at `path` before; None to drop it.
        sync: False for one of many files that the caller syncs at once, before anybody relies on them.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        if keep is not None and path.exists():
            hard_link(path, keep)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_directory(path.parent)


def write_text(path: Path, text: str, *, sync: bool = True) -> None:
    """Write a text file atomically, in UTF-8."""
    write_atomic(path, lambda file: file.write(text.encode()), sync=sync)


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Write JSON atomically. NaN and infinity raise a ValueError: other readers would not accept them."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", sync=sync)


def hard_link(source: Path, path: Path) -> None:
    """Replace `path` atomically by a hard link to `source`, or by a copy if links fail."""
    temporary = _temporary(path)
    try:
        os.link(source, temporary)
    except OSError:
        with source.open("rb") as file:
            write_atomic(path, lambda copy: shutil.copyfileobj(file, copy))
        return
    temporary.replace(path)  # if both are the same file already, this leaves `temporary` there
    temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _temporary(path: Path) -> Path:
    """Return a new name that does not contain `path`'s: TensorBoard reads whatever has `tfevents` in its name."""
    return path.with_name(f".{os.getpid()}.{secrets.token_hex(6)}{_TEMPORARY}")


def remove_temporary_files(directory: Path) -> None:
    """Remove temporary files of killed processes from a directory that nobody writes to now."""
    for file in directory.glob(f".*{_TEMPORARY}"):
        file.unlink()


def sync_directory(directory: Path) -> None:
    """Make the renames in a directory survive a power cut, unless its file system cannot, as CIFS."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    finally:
        os.close(descriptor)


def lock_file(file: IO[Any], path: Path, *, wait: bool) -> None:
    """Lock an open file for this process and those that inherit it.

    Raises:
        BlockingIOError: If another process holds the lock and this one does not wait.
        OSError: If the file system has no locks, which the message says.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        message = "its file system has no locks (NFS without a lock service? Lustre without the mount option flock?)"
        raise OSError(error.errno, message, str(path)) from error


def check_locks(directory: Path) -> None:
    """Check that files in a directory can be locked; raise an OSError if not."""
    with TemporaryFile(dir=directory) as file:
        lock_file(file, directory, wait=False)


def remove_if_empty(directory: Path) -> None:
    """Remove an empty directory, then its parents below the working directory that this leaves empty."""
    cwd = Path.cwd()
    parents = [path for path in directory.parents if path.is_relative_to(cwd) and path != cwd]
    for path in (directory, *parents):
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # not empty, or not ours to remove
            return


def check_private(folder: Path) -> None:
    """Check that only this user can write to a folder: others could have put files or links into it.

    Raises:
        OSError: If it is a link or no folder, or others may read or write it.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise OSError(errno.EINVAL, "expected a folder of yours with mode 700, and no link", str(folder))


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


def as_mapping(value: Any) -> dict[str, Any]:
    """Return a value of an untrusted file if it is a mapping, else an empty one."""
    return value if isinstance(value, dict) else {}


def as_number(value: Any) -> float | None:
    """Return a value of an untrusted file if it is a finite number of a usual size, else None."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < _LARGEST and math.isfinite(value) else None
