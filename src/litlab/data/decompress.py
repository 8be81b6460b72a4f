"""gzip, bzip2 and xz as streams, in bounded memory."""

import bz2
import gzip
import io
import lzma
from pathlib import Path

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
