"""Finding image files in a folder, or in an archive of one, and decoding them into arrays."""

import io
import os
import re
import stat
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from litlab.data.archive import MAX_MEMBER_BYTES, archive_members, is_archive
from litlab.errors import UserError

_FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow goes by the content, and knows formats that nobody asked for
_MAX_PIXELS = 2**26  # 200 MB as RGB; a little before Pillow begins to warn of decompression bombs
_MAX_SIDE = 2**16  # JPEG's own limit; resizing takes memory for each column, too
_MAX_SCANS = 100  # of a progressive JPEG, each as long as decoding a plain one; ten are usual
_SCAN = b"\xff\xda"  # never stands inside the coded image


def decode_image(content: bytes, size: tuple[int, int], where: str) -> UInt8[np.ndarray, "3 h w"]:
    """RGB pixels of an upright JPEG, PNG or WebP image of any mode.

    size: height and width; an image of another size is resized (bilinear, antialiased).
    Raises UserError, beginning with `where`, for anything else, for animations, and for images of more than 2**26
    pixels or other signs of having been made to exhaust the machine.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if problem := _excess(image, content):
                raise UserError(f"{where} {problem}: shrink or remove it")
            return image_pixels(image, size)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{where} is too large an image to be decoded safely ({error}): shrink or remove it") from error
    except Exception as error:  # damaged files raise all kinds of errors in Pillow's decoders
        raise UserError(f"{where} can't be read as a JPEG, PNG or WebP image ({error}): repair or remove it") from error


def _excess(image: Image.Image, content: bytes) -> str | None:
    """What about an image is too much for one to learn from; looks at its headers only."""
    if image.width * image.height > _MAX_PIXELS or max(image.size) > _MAX_SIDE:
        return f"is too large an image to be decoded safely ({image.width} x {image.height} pixels)"
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview beside the picture
        return f"is an animation of {frames:,} frames, expected one picture"
    if image.format in ("JPEG", "MPO") and content.count(_SCAN) > _MAX_SCANS:
        return f"is a JPEG of more than {_MAX_SCANS} scans, more than decoding could need"
    return None


def image_pixels(image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "3 h w"]:
    """RGB pixels of an image of any mode, upright, resized (bilinear, antialiased) to `size`, height and width."""
    pixels = _upright_rgb(image)
    height, width = size
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def _upright_rgb(image: Image.Image) -> Image.Image:
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits: Pillow's own conversion would clip at 255
        upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
    return upright.convert("RGB")


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


LAYOUT = "expected train/<class>/* and test/<class>/* with JPEG, PNG or WebP images"


@dataclass(frozen=True)
class Split:
    """Images of one split.

    paths: under which they are stored, as bytes in one array: a list of texts takes many times the memory, and a forked
        process copies it, object by object.
    labels: int64.
    """

    paths: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Listing:
    """Images by split, class and name."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    test: Split

    @classmethod
    def of(cls, root: Path) -> "Listing":
        """Raises UserError, naming the file or class, for what can't be used."""
        files = sorted(set(list_images(root)))
        class_names = checked_classes(root, files)
        name = root.name.split(".")[0] if is_archive(root) else root.name
        return cls(name, class_names, *(_split(files, split, class_names) for split in ("train", "test")))


def _split(files: Sequence[ImageFile], split: str, class_names: tuple[str, ...]) -> Split:
    chosen = [file for file in files if file.split == split]
    labels = {name: label for label, name in enumerate(class_names)}
    paths = np.array([file.stored.encode() for file in chosen])
    return Split(paths, np.array([labels[file.class_name] for file in chosen], dtype=np.int64))


class Places(Mapping[str, np.ndarray]):
    """Stored path -> where its pixels go: a row of one of the arrays, which come with the paths of their rows.

    A dict would take more memory than a tenth of the pixels of small images; this takes eight bytes a path.
    """

    def __init__(self, *arrays: tuple[np.ndarray, np.ndarray]) -> None:
        self._paths = [paths for paths, _ in arrays]
        self._images = [images for _, images in arrays]
        self._orders = [np.argsort(paths) for paths in self._paths]

    def __getitem__(self, stored: str) -> np.ndarray:
        sought = stored.encode()
        for paths, images, order in zip(self._paths, self._images, self._orders, strict=True):
            position = int(np.searchsorted(paths, sought, sorter=order))
            if position < len(paths) and paths[order[position]] == sought:
                place: np.ndarray = images[order[position]]
                return place
        raise KeyError(stored)

    def __iter__(self) -> Iterator[str]:
        return (path.decode() for paths in self._paths for path in paths)

    def __len__(self) -> int:
        return sum(map(len, self._paths))


def check_root(root: Path) -> None:
    """Raises UserError for what is no folder of images and no archive."""
    if not root.exists():
        raise UserError(f"data.root={root} does not exist: {LAYOUT}, in a folder or an archive")
    if root.is_dir():
        for split in ("train", "test"):
            if not (root / split).is_dir():
                raise UserError(f"data.root={root} has no folder {split}: {LAYOUT}")
    elif not is_archive(root):
        raise UserError(f"data.root={root} is neither a folder nor a tar or zip archive by its name: {LAYOUT}")


def checked_classes(root: Path, files: Sequence[ImageFile]) -> tuple[str, ...]:
    """The sorted names of the classes. Raises UserError where the two splits can't be used together."""
    train, test = ({file.class_name for file in files if file.split == split} for split in ("train", "test"))
    for split, classes in (("train", train), ("test", test)):
        if not classes:
            raise UserError(f"{root} has no images in {split}/<class>/: {LAYOUT}")
    for have, lack, classes in (("train", "test", train - test), ("test", "train", test - train)):
        if classes:
            raise UserError(
                f"{root}: {', '.join(sorted(classes))} has images in {have} but none in {lack}: every class needs both"
            )
    if len(train) < 2:
        raise UserError(f"{root} has only the class {', '.join(train)}: at least two are needed")
    return tuple(sorted(train))
