"""Decoder of untrusted JPEG, PNG and WebP files to RGB pixels of one size."""

import io
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from litlab.data.archive import archive_members
from litlab.errors import UserError

_FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow goes by the content, and would open many other formats
_MAX_PIXELS = 2**26  # 200 MB as RGB; a little before Pillow begins to warn of decompression bombs
_MAX_SIDE = 2**16  # JPEG's own limit; resizing takes memory for each column, too
_MAX_SCANS = 100  # of a progressive JPEG, each as slow as decoding a plain one; ten are usual
_SCAN = b"\xff\xda"  # does not occur inside the coded image
_CHUNK_IMAGES = 32  # handed to a thread at once
_NUM_THREADS = 4
_MIN_THREAD_BYTES = 8_192  # per image; 32x32 images (700 bytes) were decoded 1.4 times slower by two threads than one


def decode_image(content: bytes, size: tuple[int, int], source: str) -> UInt8[np.ndarray, "3 h w"]:
    """Decode a JPEG, PNG or WebP image of any mode to upright RGB pixels.

    Args:
        content: The file.
        size: Height and width; an image of another size is resized (bilinear, antialiased).
        source: Name of the file, with which error messages begin.

    Raises:
        UserError: for anything else, for animations, and for images of more than 2**26 pixels or with other signs of
            having been made to exhaust the machine.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if problem := _find_excess(image, content):
                raise UserError(f"{source} {problem}: shrink or remove it")
            return image_pixels(image, size)
    except UserError:
        raise
    except Image.DecompressionBombError as error:
        raise UserError(f"{source} is too large to be decoded safely ({error}): shrink or remove it") from error
    except Exception as error:  # Pillow's decoders raise all kinds of errors for damaged files
        problem = f"can't be read as a JPEG, PNG or WebP image ({error})"
        raise UserError(f"{source} {problem}: repair or remove it") from error


def image_pixels(image: Image.Image, size: tuple[int, int]) -> UInt8[np.ndarray, "3 h w"]:
    """Convert an image of any mode to upright RGB pixels, resized (bilinear, antialiased) to height and width."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # 16 bits: Pillow's own conversion would clip at 255
        upright = Image.fromarray((np.asarray(upright) >> 8).clip(0, 255).astype(np.uint8))
    pixels = upright.convert("RGB")
    height, width = size
    if pixels.size != (width, height):
        pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(pixels).transpose(2, 0, 1)


def decode_images(root: Path, outputs: Mapping[str, np.ndarray]) -> None:
    """Decode images of a folder or archive into arrays.

    Args:
        root: The folder or archive.
        outputs: Path of an image in the root -> its uint8 array of shape 3 h w, to whose size it is resized.

    Raises:
        UserError: for the first image that can't be decoded.
    """
    if root.is_dir():
        decode_contents(root, ((path, read_file(root / path)) for path in outputs), outputs)
    else:
        members = (member for member in archive_members(root) if str(member.path) in outputs)
        decode_contents(root, ((str(member.path), member.read()) for member in members), outputs)


def decode_contents(root: Path, contents: Iterator[tuple[str, bytes]], outputs: Mapping[str, np.ndarray]) -> None:
    """Decode files that are read already, given as path and content; otherwise as `decode_images`."""

    def decode(chunk: list[tuple[str, bytes]]) -> None:
        for path, content in chunk:
            outputs[path][:] = decode_image(content, outputs[path].shape[1:], image_source(root, path))

    pending: deque[Future[None]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(_NUM_THREADS) as threads:
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata and large images; too large ones are refused
        try:
            while chunk := list(islice(contents, _CHUNK_IMAGES)):
                if sum(len(content) for _, content in chunk) < _MIN_THREAD_BYTES * len(chunk):
                    decode(chunk)
                else:
                    pending.append(threads.submit(decode, chunk))
                if len(pending) > 2 * _NUM_THREADS:  # bounds the memory of what is read ahead
                    pending.popleft().result()
            for future in pending:
                future.result()
        finally:
            threads.shutdown(cancel_futures=True)


def image_source(root: Path, path: str) -> str:
    """Name an image of a folder or archive in an error message."""
    return str(root / path) if root.is_dir() else f"{path} in {root}"


def read_file(path: Path) -> bytes:
    """Read a file; raise a UserError if that is not possible."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _find_excess(image: Image.Image, content: bytes) -> str | None:
    """Describe a property that makes decoding too expensive, from the headers of an image; None if there is none."""
    if image.width * image.height > _MAX_PIXELS or max(image.size) > _MAX_SIDE:
        return f"is too large to be decoded safely ({image.width} x {image.height} pixels)"
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview beside the picture
        return f"is an animation of {num_frames:,} frames, expected one picture"
    if image.format in ("JPEG", "MPO") and content.count(_SCAN) > _MAX_SCANS:
        return f"is a JPEG of more than {_MAX_SCANS} scans, more than decoding could need"
    return None
