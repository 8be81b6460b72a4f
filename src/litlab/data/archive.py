"""Reading archives that somebody else made: nothing is extracted to disk, no member is trusted.

Members are streamed one after another. Refused, by name, before its content is used: a path that is absolute or climbs
out, a link, a device, a pipe, and an archive that declares, or turns out to hold, more than a data set could.
"""

import bz2
import gzip
import io
import lzma
import re
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from litlab.errors import UserError

# An xz file declares how much memory it wants; its format allows 4 GB. The highest preset asks for 65 MB.
_MAX_XZ_MEMORY = 2**28
_PORTION = 2**18


def decompressed(path: Path) -> io.BufferedIOBase:
    """A file's content, decompressed if it begins as a gzip, bzip2 or xz file does."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start.startswith(b"BZh"):
        return bz2.open(path)
    return io.BufferedReader(_Xz(path), _PORTION) if start.startswith(b"\xfd7zXZ\x00") else path.open("rb")


class _Xz(io.RawIOBase):
    """What `lzma.open` gives, which has no limit on memory. Raises lzma.LZMAError, EOFError for a cut file."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stream: lzma.LZMADecompressor | None = None
        self._rest = b""  # read, but not yet given to the decompressor

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._file.close()
        super().close()

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]
        while True:
            if self._stream is None and not self._next_stream():
                return 0
            assert self._stream is not None
            if self._stream.needs_input and not self._rest:
                self._rest = self._file.read(_PORTION)
                if not self._rest:
                    raise EOFError("the file ends before its content does")
            content = self._stream.decompress(self._rest, len(buffer))
            self._rest = self._stream.unused_data
            if self._stream.eof:
                self._stream = None
            if content:
                buffer[: len(content)] = content
                return len(content)

    def _next_stream(self) -> bool:
        """Whether there is one more: a file may be several, one after another, with zeros between them."""
        self._rest = self._rest.lstrip(b"\0")
        while not self._rest:
            portion = self._file.read(_PORTION)
            if not portion:
                return False
            self._rest = portion.lstrip(b"\0")
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
        return True


# ImageNet-1k has 1.3 million files; arrays of many more images would not fit the machines this is made for.
MAX_MEMBERS = 2_000_000
# What an archive may unpack to. ImageNet-1k has 150 GB.
MAX_TOTAL_BYTES = 500 * 10**9
# A member is read into memory as a whole. CIFAR-10's largest has 31 MB.
MAX_MEMBER_BYTES = 256 * 2**20
# Images are compressed already: no archive of them shrinks much. Small ones may, as those of tests do.
_MAX_RATIO, _SMALL = 200, 2**30
# Of all that stands between two members of a tar. A name may have 4 kB, an attribute 64 kB.
_MAX_HEADER_BYTES = 2**20
# The list of members at a zip's end. That of ImageNet-1k has 125 MB.
_MAX_INDEX_BYTES = 2**28

_NO_NAME = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and bytes that are no UTF-8
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")


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
    num_members = total_bytes = 0
    with _damage_reported(path):
        entries = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
        limit = min(max_total_bytes, max(_SMALL, _MAX_RATIO * path.stat().st_size))
        for entry in entries:
            num_members += 1
            if num_members > max_members:
                raise UserError(f"{path} has more than {max_members:,} members: refused")
            if entry is None:  # a folder
                continue
            total_bytes += entry.num_bytes
            if total_bytes > limit:
                raise UserError(f"{path} unpacks to more than {limit:,} bytes (at {entry.path}): refused")
            yield entry


def _tar_members(path: Path) -> Iterator[Member | None]:
    # tarfile's own decompression copies its buffer at every read: ten times slower for small files
    with decompressed(path) as file:
        stream = _Metered(path, file)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for entry in archive:
                yield _tar_member(path, archive, entry)
                end = entry.offset_data + (entry.size if entry.isreg() else 0)
                stream.limit = end + _MAX_HEADER_BYTES
                archive.members.clear()  # tarfile would remember every member,
                archive.pax_headers.clear()  # and what it was told of all


def _tar_member(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Member | None:
    name = _checked_path(path, entry.name)
    if entry.isdir():
        return None
    if not entry.isreg() or entry.issparse():
        kind = "a link" if entry.issym() or entry.islnk() else "sparse" if entry.issparse() else "a device or pipe"
        raise UserError(f"{path}: {entry.name} is {kind}: refused, only plain files are read")
    _check_size(path, entry.name, entry.size)

    def read() -> bytes:
        with _damage_reported(path):
            content = archive.extractfile(entry)
            assert content is not None, "a regular file"
            return content.read()

    return Member(name, entry.size, read)


class _Metered:
    """A stream of which tarfile gets no more than the last member it named and some headers, whatever these declare."""

    def __init__(self, path: Path, stream: io.BufferedIOBase) -> None:
        self._path, self._stream = path, stream
        self._taken = 0
        self.limit = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._taken += len(content)
        if self._taken > self.limit + tarfile.RECORDSIZE:  # which tarfile reads at once
            raise UserError(f"{self._path} has headers of more than {_MAX_HEADER_BYTES:,} bytes: refused")
        return content


def _zip_members(path: Path) -> Iterator[Member | None]:
    with _Portioned(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            yield _zip_member(path, archive, entry)


def _zip_member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Member | None:
    name = _checked_path(path, entry.filename)
    if entry.is_dir():
        return None
    file_type = stat.S_IFMT(entry.external_attr >> 16)
    if file_type not in (0, stat.S_IFREG):
        kind = "a link" if file_type == stat.S_IFLNK else "a device or pipe"
        raise UserError(f"{path}: {entry.filename} is {kind}: refused, only plain files are read")
    # Python unpacks the others without a limit, whatever size they declare.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path}: {entry.filename} is compressed by method {entry.compress_type}: pack it with deflate")
    _check_size(path, entry.filename, entry.file_size)
    _check_size(path, entry.filename, entry.compress_size)

    def read() -> bytes:
        with _damage_reported(path), archive.open(entry) as file:
            content = file.read(entry.file_size)  # without a number, as much as comes, whatever was declared
            if len(content) < entry.file_size:
                raise EOFError(f"{entry.filename} has {len(content):,} bytes instead of {entry.file_size:,}")
            return content

    return Member(name, entry.file_size, read)


class ZipReader:
    """Reads members of a zip archive in any order; for one thread of one process.

    Raises UserError, with the names of archive and member, for what this module refuses and for a damaged archive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _damage_reported(path):
            self._file = _Portioned(io.FileIO(path))
            self._archive = zipfile.ZipFile(self._file)
            members = (_zip_member(path, self._archive, entry) for entry in self._archive.infolist())
            self._members = {str(member.path): member for member in members if member is not None}

    def __del__(self) -> None:  # Python warns of files that nobody closes
        if hasattr(self, "_archive"):
            self._archive.close()
        if hasattr(self, "_file"):
            self._file.close()

    def read(self, stored: str) -> bytes:
        """The content of the member whose path that is."""
        if stored not in self._members:
            raise UserError(f"{self._path} has no {stored} any more: put it back, or start anew")
        return self._members[stored].read()


class _Portioned(io.BufferedReader):
    """A file that is never read into memory in larger portions than the index of a zip may have."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MAX_INDEX_BYTES:
            raise ValueError(f"an index of {size:,} bytes")
        return super().read(size)


def _check_size(archive: Path, name: str, num_bytes: int) -> None:
    if not 0 <= num_bytes <= MAX_MEMBER_BYTES:
        raise UserError(f"{archive}: {name} unpacks to {num_bytes:,} bytes: refused")


def _checked_path(archive: Path, name: str) -> PurePosixPath:
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{archive}: the path of the member {name!r} leaves the archive: refused")
    if _NO_NAME.search(name) or len(name) > 4096:
        raise UserError(f"{archive}: a member is called {name[:80]!a}, which is no proper name: refused")
    return PurePosixPath(name)


@contextmanager
def _damage_reported(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of damaged archives Python's readers raise all kinds
        if isinstance(error, OSError) and error.filename:
            raise UserError(f"{path} can't be read: {error.strerror}") from error
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged, or not what its name says ({reason}): get it again") from error
