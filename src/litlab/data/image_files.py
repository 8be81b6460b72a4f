"""Finding image files in a folder, or in an archive of one, and decoding them into arrays."""

import os
import re
import stat
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from litlab.data.archive import MAX_MEMBER_BYTES, archive_members
from litlab.data.decode_image import decode_image
from litlab.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_NO_UTF8 = re.compile("[\ud800-\udfff]")  # how Python spells bytes that are none
_CHUNK = 32  # images handed to a thread at once
_NUM_THREADS = 4
_WORTH_A_THREAD = 8_192  # bytes; 32x32 images (700 bytes) were decoded 1.4 times slower by two threads than by one


@dataclass(frozen=True, order=True, slots=True)
class ImageFile:
    """An image's place in the layout `split/class/name`, by which images are sorted, and where it is stored."""

    split: str
    class_name: str
    name: str
    stored: str  # path in the folder or archive


def stamps(root: Path) -> list[tuple[str, int, int]]:
    """(path, bytes, time of change in ns) of an archive, or of each image of a folder: what changes when they do."""
    if not root.is_dir():
        status = root.stat()
        return [(root.name, status.st_size, status.st_mtime_ns)]
    return [(path, status.st_size, status.st_mtime_ns) for path, status in _walk(root)]


def list_images(root: Path) -> list[ImageFile]:
    """The images of both splits; an archive may have a single folder around `train` and `test`."""
    if root.is_dir():
        paths = [PurePosixPath(path) for path, _ in _walk(root)]
    else:
        paths = [path for path in (member.path for member in archive_members(root)) if not _hidden(path)]
    tops = {path.parts[0] for path in paths}
    depth = 1 if len(tops) == 1 and tops.isdisjoint({"train", "test"}) else 0
    placed = [file for path in paths if (file := _placed(path, depth))]
    seen: set[ImageFile] = set()
    for file in placed:
        if file in seen:  # one would overwrite the other
            raise UserError(f"{root} holds {file.stored} twice: remove one of them")
        seen.add(file)
    return placed


def decode_images(root: Path, places: Mapping[str, np.ndarray]) -> None:
    """Decodes each stored path's image into its uint8 array (3 h w), resized to fit.

    Raises UserError for the first image that can't be decoded.
    """
    decode_contents(root, _contents(root, places), places)


def decode_contents(root: Path, contents: Iterator[tuple[str, bytes]], places: Mapping[str, np.ndarray]) -> None:
    """The same, of stored paths with what the files hold."""
    pending: deque[Future[None]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(_NUM_THREADS) as threads:
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata and of large images; too large ones are refused
        try:
            for chunk in _chunks(contents):
                if sum(len(content) for _, content in chunk) < _WORTH_A_THREAD * len(chunk):
                    _decode_chunk(root, chunk, places)
                else:
                    pending.append(threads.submit(_decode_chunk, root, chunk, places))
                if len(pending) > 2 * _NUM_THREADS:  # bounds what waits in memory
                    pending.popleft().result()
            for future in pending:
                future.result()
        finally:
            threads.shutdown(cancel_futures=True)


def _decode_chunk(root: Path, chunk: list[tuple[str, bytes]], places: Mapping[str, np.ndarray]) -> None:
    for stored, content in chunk:
        where = str(root / stored) if root.is_dir() else f"{stored} in {root}"
        places[stored][:] = decode_image(content, places[stored].shape[1:], where)


def _contents(root: Path, stored: Mapping[str, np.ndarray]) -> Iterator[tuple[str, bytes]]:
    if root.is_dir():
        for name in stored:
            yield name, read_file(root / name)
    else:
        for member in archive_members(root):
            if str(member.path) in stored:
                yield str(member.path), member.read()


def _chunks(items: Iterator[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    chunk = []
    for item in items:
        chunk.append(item)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    yield chunk


def read_file(path: Path) -> bytes:
    """Raises UserError where that is not possible."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Image files under train and test, sorted, with their status. Links are followed."""
    folders = [root / "test", root / "train"]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
            for entry in ordered:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    folders.append(folder / entry.name)
                elif entry.name.lower().endswith(SUFFIXES):
                    _check_file(entry.path, entry.stat())
                    yield os.path.relpath(entry.path, root), entry.stat()
        except OSError as error:
            raise UserError(f"{error.filename or folder} can't be read: {error.strerror}") from error


def _check_file(path: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for good
        raise UserError(f"{path} is no plain file: remove it")
    if status.st_size > MAX_MEMBER_BYTES:
        raise UserError(f"{path} has {status.st_size:,} bytes, more than an image could need: remove it")
    if not path.isascii() and _NO_UTF8.search(path):
        raise UserError(f"{path!a} has a name that is not UTF-8: rename it")


def _placed(path: PurePosixPath, depth: int) -> ImageFile | None:
    parts = path.parts[depth:]
    if len(parts) < 3 or parts[0] not in ("train", "test") or not path.name.lower().endswith(SUFFIXES):
        return None
    return ImageFile(parts[0], parts[1], "/".join(parts[2:]), str(path))


def _hidden(path: PurePosixPath) -> bool:
    return path.parts[0] == "__MACOSX" or any(part.startswith(".") for part in path.parts)
