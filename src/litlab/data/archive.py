"""Untrusted tar and zip archives, read without extracting them to disk.

Members are streamed one after another. Refused by name, before the content is used: paths that are absolute or leave
the archive, links, devices, pipes, and archives that declare or contain more than a data set could.
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
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from litlab.errors import UserError

# ImageNet-1k has 1.3 million files in 150 GB.
_MAX_MEMBERS = 2_000_000
_MAX_TOTAL_BYTES = 500 * 10**9
# A member is read into memory as a whole. CIFAR-10's largest has 31 MB.
MAX_MEMBER_BYTES = 256 * 2**20
# Images are compressed already, so large archives of them hardly shrink. Small ones may, such as those of tests.
_MAX_RATIO, _MIN_RATIO_BYTES = 200, 2**30
# Everything between two members of a tar. A name may have 4 kB, an attribute 64 kB.
_MAX_HEADER_BYTES = 2**20
# The list of members at the end of a zip. That of ImageNet-1k has 125 MB.
_MAX_INDEX_BYTES = 2**28
# An xz file declares how much memory it needs; the format allows 4 GB. The highest preset takes 65 MB.
_MAX_XZ_MEMORY = 2**28
_READ_BYTES = 2**18
_UTF8_NAME, _UNIX = 0x800, 3  # flag and system of a zip's member

_INVALID_NAME = re.compile("[\0-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters and bytes that are not UTF-8
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".zip")


@dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
        path: Path in the archive.
        num_bytes: Size of the content.
        read: Reads the content; works until the next member is requested.
        raw_name: Path as it is stored, if the archive does not tell its encoding; `path` is then read as cp437.
        from_unix: Whether the archive was written on macOS or Linux.
    """

    path: PurePosixPath
    num_bytes: int
    read: Callable[[], bytes]
    raw_name: bytes | None = None
    from_unix: bool = True


def is_archive(path: Path) -> bool:
    """Tell by its name if a file is an archive that `archive_members` reads."""
    return path.name.lower().endswith(_SUFFIXES)


def archive_members(path: Path) -> Iterator[Member]:
    """Yield the regular files of a tar (plain, gzip, xz, bzip2) or zip archive in stored order.

    Raises:
        UserError: for a damaged archive and for what this module refuses, naming the archive and the member.
    """
    total_bytes = 0
    with _damage_as_user_error(path):
        members = _zip_members(path) if path.name.lower().endswith(".zip") else _tar_members(path)
        limit = min(_MAX_TOTAL_BYTES, max(_MIN_RATIO_BYTES, _MAX_RATIO * path.stat().st_size))
        for num_members, member in enumerate(members, start=1):
            if num_members > _MAX_MEMBERS:
                raise UserError(f"{path} has more than {_MAX_MEMBERS:,} members: refused")
            if member is None:  # a folder
                continue
            total_bytes += member.num_bytes
            if total_bytes > limit:
                raise UserError(f"{path} unpacks to more than {limit:,} bytes (at {member.path}): refused")
            yield member


class ZipReader:
    """Random access to the members of a zip archive, for one thread of one process.

    Args:
        path: The archive.

    Raises:
        UserError: for a damaged archive and for what this module refuses, naming the archive and the member.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with _damage_as_user_error(path):
            self._file = _ZipFile(io.FileIO(path))
            self._archive = zipfile.ZipFile(self._file)
            members = _members_of_zip(path, self._archive)
            self._members = {str(member.path): member for member in members if member is not None}

    def __del__(self) -> None:  # Python warns of files that are not closed
        if hasattr(self, "_file"):
            self._file.close()

    def read(self, member: str) -> bytes:
        """Return the content of the member with this path."""
        if member not in self._members:
            raise UserError(f"{self._path} no longer contains {member}: restore it, or start a new run")
        return self._members[member].read()


def _tar_members(path: Path) -> Iterator[Member | None]:
    # tarfile's own decompression copies its buffer at every read: ten times slower for small files
    with closing(_open_decompressed(path)) as file:
        stream = _TarStream(path, file)
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for entry in archive:
                yield _tar_member(path, archive, entry)
                end = entry.offset_data + (entry.size if entry.isreg() else 0)
                stream.limit = end + _MAX_HEADER_BYTES
                archive.members.clear()  # tarfile would keep every member
                archive.pax_headers.clear()  # and every global header


def _tar_member(path: Path, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> Member | None:
    name = _checked_path(path, entry.name)
    if entry.isdir():
        return None
    if not entry.isreg() or entry.issparse():
        file_type = "a link" if entry.issym() or entry.islnk() else "sparse" if entry.issparse() else "a device or pipe"
        raise UserError(f"{path}: {entry.name} is {file_type}: refused, only plain files are read")
    _check_size(path, entry.name, entry.size)

    def read() -> bytes:
        with _damage_as_user_error(path):
            content = archive.extractfile(entry)
            assert content is not None, "a regular file"
            return content.read()

    return Member(name, entry.size, read)


class _TarStream:
    """Stream that ends at the last member plus the largest header, whatever the headers declare."""

    def __init__(self, path: Path, stream: "io.BufferedIOBase | _XzFile") -> None:
        self._path, self._stream = path, stream
        self._num_read = 0
        self.limit = _MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        content = self._stream.read(size)
        self._num_read += len(content)
        if self._num_read > self.limit + tarfile.RECORDSIZE:  # which tarfile reads at once
            raise UserError(f"{self._path} has headers of more than {_MAX_HEADER_BYTES:,} bytes: refused")
        return content


def _zip_members(path: Path) -> Iterator[Member | None]:
    with _ZipFile(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        yield from _members_of_zip(path, archive)


def _members_of_zip(path: Path, archive: zipfile.ZipFile) -> Iterator[Member | None]:
    """Yield the members; those of an archive without a slash are separated by backslashes, as by PowerShell 5."""
    entries = archive.infolist()
    separator = "/" if any("/" in entry.filename for entry in entries) else "\\"
    return (_zip_member(path, archive, entry, separator) for entry in entries)


def _zip_member(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo, separator: str) -> Member | None:
    name = _checked_path(path, entry.filename.replace(separator, "/"))
    if entry.filename.endswith(separator):
        return None
    mode = stat.S_IFMT(entry.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        file_type = "a link" if mode == stat.S_IFLNK else "a device or pipe"
        raise UserError(f"{path}: {entry.filename} is {file_type}: refused, only plain files are read")
    # Python unpacks other methods without a limit, whatever size the entry declares.
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path}: {entry.filename} is compressed by method {entry.compress_type}: pack it with deflate")
    _check_size(path, entry.filename, entry.file_size)
    _check_size(path, entry.filename, entry.compress_size)

    def read() -> bytes:
        with _damage_as_user_error(path), archive.open(entry) as file:
            content = file.read(entry.file_size)  # without a size, all that comes is read, whatever was declared
            if len(content) < entry.file_size:
                raise EOFError(f"{entry.filename} has {len(content):,} bytes instead of {entry.file_size:,}")
            return content

    if entry.flag_bits & _UTF8_NAME or entry.filename.isascii() or entry.filename != entry.orig_filename:
        return Member(name, entry.file_size, read)
    raw_name = entry.filename.replace(separator, "/").encode("cp437")
    return Member(name, entry.file_size, read, raw_name, entry.create_system == _UNIX)


class _ZipFile(io.BufferedReader):
    """File that refuses to read more at once than the index of a zip may have."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _MAX_INDEX_BYTES:
            raise ValueError(f"an index of {size:,} bytes")
        return super().read(size)


def _open_decompressed(path: Path) -> "io.BufferedIOBase | _XzFile":
    """Open a file, decompressing it if it begins as a gzip, bzip2 or xz file does."""
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return gzip.open(path)
    if start.startswith(b"BZh"):
        return bz2.open(path)
    return _XzFile(path) if start.startswith(b"\xfd7zXZ\x00") else path.open("rb")


class _XzFile:
    """Decompressed content of an xz file, read with a limit on memory, which `lzma.open` does not have."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._stream: lzma.LZMADecompressor | None = None
        self._pending = b""  # read, but not yet given to the decompressor
        self.close = self._file.close

    def read(self, size: int) -> bytes:
        """Read at most `size` decompressed bytes; empty at the end."""
        while True:
            if not self._pending and (self._stream is None or self._stream.needs_input):
                self._pending = self._file.read(_READ_BYTES)
                if not self._pending and self._stream is None:
                    return b""
                if not self._pending:
                    raise EOFError("the file ends before its content does")
            if self._stream is None:  # a file may consist of several streams with zeros between them
                self._pending = self._pending.lstrip(b"\0")
                if not self._pending:
                    continue
                self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MAX_XZ_MEMORY)
            content = self._stream.decompress(self._pending, size)
            self._pending = self._stream.unused_data
            if self._stream.eof:
                self._stream = None
            if content:
                return content


def _check_size(archive: Path, name: str, num_bytes: int) -> None:
    if not 0 <= num_bytes <= MAX_MEMBER_BYTES:
        raise UserError(f"{archive}: {name} unpacks to {num_bytes:,} bytes: refused")


def _checked_path(archive: Path, name: str) -> PurePosixPath:
    parts = re.split(r"[/\\]", name)
    if parts[0] == "" or ".." in parts or re.match(r"[A-Za-z]:", name):
        raise UserError(f"{archive}: the path of the member {name!r} leaves the archive: refused")
    if _INVALID_NAME.search(name) or len(name) > 4096:
        raise UserError(f"{archive}: a member has the invalid name {name[:80]!a}: refused")
    return PurePosixPath(name)


@contextmanager
def _damage_as_user_error(path: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Python's readers raise all kinds of errors for damaged archives
        if isinstance(error, OSError) and error.filename:
            raise UserError(f"{path} can't be read: {error.strerror}") from error
        reason = str(error) or type(error).__name__
        raise UserError(f"{path} is damaged or not of the type its name says ({reason}): download it again") from error
