"""Leases of the devices of this machine, by which the commands of one user know of each other's jobs.

A lease is a lock on a file that stands for a device. The command that starts a job takes it, and the job holds it as
well, so the device stays taken if the command is killed while the job saves. The kernel frees the lease when the last
of them has ended, however it ended. The text in the file only says whose it is.
"""

import errno
import fcntl
import os
import re
import socket
import stat
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from litlab.runs.files import check_private, open_regular

FOLDER = "LITLAB_LEASES"  # environment variable: folder of the leases, such as one that several containers share
_OWNER = re.compile(r"process \d{1,9} on [\x21-\x7e]{1,255}")


def lease_folder() -> Path:
    """Return the folder of the leases of this user on this machine.

    `$XDG_RUNTIME_DIR` is not used: it goes when the user logs out, though jobs may run on, and a cron job has none.
    In a SLURM job the devices belong to that job, and a cluster may give GPU 0 of each a different card.
    """
    if folder := os.environ.get(FOLDER):
        return Path(folder)
    job = os.environ.get("SLURM_JOB_ID")
    name = f"litlab-{os.getuid()}" + (f"-slurm-{job}" if job and job.isdigit() else "")
    return Path(os.environ.get("TMPDIR") or "/tmp", name)


class DeviceLeases:
    """Leases that this command holds.

    Without a folder that is safe to use, or a file in it that can be locked, a device counts as free, with a warning.

    Args:
        folder: Folder of the leases; None for that of this user.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = (folder or lease_folder()).absolute()
        self._held: dict[str, tuple[int | None, int]] = {}  # device -> descriptor, number of jobs
        self._warnings: set[str] = set()
        self._is_usable = True
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            check_private(self._folder)
        except OSError as error:
            self._is_usable = False
            self._warn(self._folder, error)

    def take(self, devices: Iterable[str], number: int) -> tuple[list[str], list[str]]:
        """Take the first leases that no other command holds. A device that this command holds may be taken again.

        Args:
            devices: Names of the devices, best first.
            number: Number of leases to take.

        Returns:
            Devices taken, at most `number`; devices that other commands hold, as far as they were looked at.
        """
        taken: list[str] = []
        refused: list[str] = []
        for device in devices:
            if len(taken) == number:
                break
            descriptor, num_jobs = self._held.get(device, (None, 0))
            try:
                if num_jobs == 0:
                    descriptor = self._lock(device)
            except BlockingIOError:
                refused.append(device)
                continue
            self._held[device] = (descriptor, num_jobs + 1)
            taken.append(device)
        return taken, refused

    def release(self, devices: Iterable[str]) -> None:
        """Give up leases of a job; those of jobs that share a device with it stay."""
        for device in devices:
            descriptor, num_jobs = self._held.pop(device)
            if num_jobs > 1:
                self._held[device] = (descriptor, num_jobs - 1)
            elif descriptor is not None:
                os.close(descriptor)

    def files(self, devices: Iterable[str]) -> list[str]:
        """Return the files of leases, for `hold_leases` in the job."""
        return [] if not self._is_usable else [str(self._file(device)) for device in devices]

    def owner(self, device: str) -> str:
        """Return who holds the lease of a device: process and host of the command."""
        with suppress(OSError), open_regular(self._file(device)) as file:
            text = file.read(1000).decode(errors="replace").strip()
            if _OWNER.fullmatch(text):
                return text
        return "another process"

    def _file(self, device: str) -> Path:
        return self._folder / quote(device, safe="")

    def _lock(self, device: str) -> int | None:
        """Lock the file of a device, alone at first, so that no other command holds it, then shared with the job.

        Returns:
            Its descriptor; None if the file can't be used.

        Raises:
            BlockingIOError: If another command, or a job of one, holds it.
        """
        if not self._is_usable:
            return None
        descriptor = None
        try:
            descriptor = _open(self._file(device), os.O_RDWR | os.O_CREAT)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(OSError):  # the disk may be full
                os.ftruncate(descriptor, 0)
                os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # not atomic: another command may come between
        except BlockingIOError:
            assert descriptor is not None
            os.close(descriptor)
            raise
        except OSError as error:
            if descriptor is not None:
                os.close(descriptor)
            self._warn(self._file(device), error)
            return None
        return descriptor

    def _warn(self, path: Path, error: OSError) -> None:
        """Print, once for each path, why the devices of other commands are not known."""
        message = f"litlab: {path}: {error.strerror}; jobs may share devices with those of other commands"
        if message not in self._warnings:
            self._warnings.add(message)
            print(message, file=sys.stderr)


def hold_leases(files: Sequence[str]) -> None:
    """Hold the leases of this job's command in this process and its forks, until the last of them has ended."""
    for file in files:
        with suppress(OSError):
            fcntl.flock(_open(Path(file), os.O_RDONLY), fcntl.LOCK_SH | fcntl.LOCK_NB)  # it stays open


def _open(file: Path, flags: int) -> int:
    """Open a file of a lease, which is no link and no pipe."""
    descriptor = os.open(file, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(file))
    return descriptor
