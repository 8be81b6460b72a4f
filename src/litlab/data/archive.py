"""Reading archives that somebody else made: nothing is extracted to disk, no member is trusted.

Members are streamed one after another. Refused, by name, before its content is used: a path that is absolute or climbs
out, a link, a device, a pipe, and an archive that declares more than a data set could reasonably hold.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from litlab.errors import UserError

# ImageNet-1k has 1.3 million files; arrays of many more images would not fit the machines this is made for.
MAX_MEMBERS = 2_000_000
# What an archive may declare as its unpacked size. ImageNet-1k has 150 GB; a bomb declares terabytes and more.
MAX_TOTAL_BYTES = 500 * 10**9
# A member is read into memory as a whole. CIFAR-10's largest has 31 MB.
MAX_MEMBER_BYTES = 256 * 2**20

_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    gzip.BadGzipFile,
    NotImplementedError,  # zipfile: an unknown compression
    RuntimeError,  # zipfile: encrypted
)


@dataclass(frozen=True)
class Member:
    """A regular file in an archive. `read` works until the next member is asked for."""

    path: PurePosixPath
    num_bytes: int
    read: Callable[[], bytes]


def is_archive(path: Path) -> bool:
    """Whether the name is that of an archive that `archive_members` reads."""
    return path.name.lower().endswith(_SUFFIXES)


def archive_members(
    path: Path, *, max_members: int = MAX_MEMBERS, max_total_bytes: int = MAX_TOTAL_BYTES
) -> Iterator[Member]:
    """The regular files of a tar (plain, gzip, xz, bzip2) or zip archive, in stored order.

    Raises UserError, with the names of archive and member, for what this module refuses and for a damaged archive.
    """
    members = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
    num_members = total_bytes = 0
    with _damage_reported(path):
        for member in members:
            num_members += 1
            total_bytes += member.num_bytes
            if num_members > max_members:
                raise UserError(f"{path} has more than {max_members:,} members: refused")
            if total_bytes > max_total_bytes:
                raise UserError(f"{path} unpacks to more than {max_total_bytes:,} bytes (at {member.path}): refused")
            if member.num_bytes > MAX_MEMBER_BYTES:
                raise UserError(f"{path}: {member.path} unpacks to {member.num_bytes:,} bytes: refused")
            yield member


def _tar_members(path: Path) -> Iterator[Member]:
    # tarfile's own decompression copies its buffer at every read: ten times slower for small files
    with _decompressed(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for entry in archive:
            name = _checked_path(path, entry.name)
            if entry.isdir():
                continue
            if not entry.isreg():
                kind = "a link" if entry.issym() or entry.islnk() else "a device or pipe"
                raise UserError(f"{path}: {entry.name} is {kind}: refused, only plain files are read")

            def read(entry: tarfile.TarInfo = entry) -> bytes:
                with _damage_reported(path):
                    content = archive.extractfile(entry)
                    assert content is not None, "a regular file"
                    return content.read()

            yield Member(name, entry.size, read)
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would remember every member


def _decompressed(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start.startswith(b"BZh"):
        return bz2.open(path)
    return lzma.open(path) if start.startswith(b"\xfd7zXZ\x00") else path.open("rb")


def _zip_members(path: Path) -> Iterator[Member]:
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            name = _checked_path(path, entry.filename)
            if entry.is_dir():
                continue
            file_type = stat.S_IFMT(entry.external_attr >> 16)
            if file_type not in (0, stat.S_IFREG):
                kind = "a link" if file_type == stat.S_IFLNK else "a device or pipe"
                raise UserError(f"{path}: {entry.filename} is {kind}: refused, only plain files are read")

            def read(entry: zipfile.ZipInfo = entry) -> bytes:
                with _damage_reported(path):
                    return archive.read(entry)

            yield Member(name, entry.file_size, read)


def _checked_path(archive: Path, name: str) -> PurePosixPath:
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{archive}: the path of the member {name!r} leaves the archive: refused")
    return PurePosixPath(name)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged, or not what its name says ({reason}): get it again") from error
