"""Decoder of untrusted JPEG, PNG and WebP files to RGB pixels of one size."""

import io
import warnings
from collections import deque
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import ExifTags, Image, UnidentifiedImageError

from litlab.data.archive import archive_members
from litlab.data.resize import Resize, resize_boxes
from litlab.errors import UserError

MAX_BIT_DEPTH = 16
_FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow goes by the content, and would open many other formats
_OTHER_FORMATS = {b"GIF8": "GIF", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}  # by the first bytes of a file
_MAX_PIXELS = 2**26  # 200 MB as RGB; a little before Pillow begins to warn of decompression bombs
_MAX_SIDE = 2**16  # JPEG's own limit; resizing takes memory for each column, too
_MAX_SCANS = 100  # of a progressive JPEG, each as slow as decoding a plain one; ten are usual
_SCAN = b"\xff\xda"  # does not occur inside the coded image
# Pillow's names of PNGs with colors or alpha of 16 bits, of which it reads the high bytes, and of a format of as many
# bytes by which it reads the low ones, or in gray images both.
_LOW_BYTES = {"RGB;16B": "RGB;16L", "RGBA;16B": "RGBA;16L", "LA;16B": "RGBA"}
_END = b"\xff\xd9"  # of a JPEG
_FILLER = b"\xaa\x55\x33" * 100  # decoded as pixels where those of a JPEG are missing, without effect otherwise
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip  # by EXIF orientation
_CHUNK_IMAGES = 32  # handed to a thread at once
_NUM_THREADS = 4
_MIN_THREAD_BYTES = 8_192  # per image; 32x32 images (700 bytes) were decoded 1.4 times slower by two threads than one


class UnreadableImage(ValueError):
    """Raised for a file that is no usable image; the message continues a sentence that begins with its name."""


@dataclass
class DecodingReport:
    """Findings of a pass over images.

    Attributes:
        measured: Paths of the images that count for `max_value`.
        unreadable: Path of each image that can't be used -> the reason.
        max_value: Largest value of the 16-bit images among those; None if there are none.
    """

    measured: Container[str] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    max_value: int | None = None

    def add(self, other: "DecodingReport") -> None:
        """Add the findings of another part of the pass."""
        self.unreadable |= other.unreadable
        if other.max_value is not None:
            self.max_value = max(other.max_value, self.max_value or 0)


def decode_image(
    content: bytes,
    size: tuple[int, int],
    source: str,
    bit_depth: int = MAX_BIT_DEPTH,
    resize: Resize = "squash",
) -> UInt8[np.ndarray, "3 h w"]:
    """Decode a JPEG, PNG or WebP image of any mode to upright RGB pixels, on white where it is transparent.

    Args:
        content: The file.
        size: Height and width; an image of another size is resized (bilinear, antialiased).
        source: Name of the file, with which error messages begin.
        bit_depth: Bits that 16-bit images use; larger values are white.
        resize: See `resize_boxes`.

    Raises:
        UserError: for anything else, for animations, and for images of more than 2**26 pixels or with other signs of
            having been made to exhaust the machine.
    """
    try:
        return _decode(content, size, bit_depth, resize)[0]
    except UnreadableImage as error:
        raise UserError(f"{source} {error}: replace or remove it") from error


def image_pixels(
    image: Image.Image, size: tuple[int, int], bit_depth: int = MAX_BIT_DEPTH, resize: Resize = "squash"
) -> UInt8[np.ndarray, "3 h w"]:
    """Convert an image of any mode to upright RGB pixels, resized (bilinear, antialiased) to height and width."""
    pixels = _to_rgb(_to_upright(image), bit_depth)
    height, width = size
    if pixels.size != (width, height):
        source, placed = resize_boxes((pixels.height, pixels.width), size, resize)
        if (source.width, source.height) != pixels.size:
            pixels = pixels.crop((source.left, source.top, source.left + source.width, source.top + source.height))
        pixels = pixels.resize((placed.width, placed.height), Image.Resampling.BILINEAR)
        if pixels.size != (width, height):
            canvas = Image.new("RGB", (width, height))
            canvas.paste(pixels, (placed.left, placed.top))
            pixels = canvas
    return np.asarray(pixels).transpose(2, 0, 1)


def decode_images(
    root: Path,
    outputs: Mapping[str, np.ndarray],
    bit_depth: int,
    report: DecodingReport,
    resize: Resize = "squash",
) -> None:
    """Decode images of a folder or archive into arrays.

    Args:
        root: The folder or archive.
        outputs: Path of an image in the root -> its uint8 array of shape 3 h w, to whose size it is resized.
        bit_depth: As for `decode_image`.
        report: Gets the findings; the arrays of unreadable images are left as they are.
        resize: As for `decode_image`.

    Raises:
        UserError: for a file that can't be opened, and for a damaged archive.
    """
    if root.is_dir():
        contents = ((path, read_file(root / path)) for path in outputs)
    else:
        members = (member for member in archive_members(root) if str(member.path) in outputs)
        contents = ((str(member.path), member.read()) for member in members)
    decode_contents(contents, outputs, bit_depth, report, resize)


def decode_contents(
    contents: Iterator[tuple[str, bytes]],
    outputs: Mapping[str, np.ndarray],
    bit_depth: int,
    report: DecodingReport,
    resize: Resize = "squash",
) -> None:
    """Decode files that are read already, given as path and content; otherwise as `decode_images`."""

    def decode(chunk: list[tuple[str, bytes]]) -> DecodingReport:
        found = DecodingReport(report.measured)
        for path, content in chunk:
            try:
                outputs[path][:], value = _decode(content, outputs[path].shape[1:], bit_depth, resize)
            except UnreadableImage as error:
                found.unreadable[path] = str(error)
            else:
                if value is not None and path in report.measured:
                    found.max_value = max(value, found.max_value or 0)
        return found

    pending: deque[Future[DecodingReport]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(_NUM_THREADS) as threads:
        warnings.simplefilter("ignore")  # Pillow's, of odd metadata and large images; too large ones are refused
        try:
            while chunk := list(islice(contents, _CHUNK_IMAGES)):
                if sum(len(content) for _, content in chunk) < _MIN_THREAD_BYTES * len(chunk):
                    report.add(decode(chunk))
                else:
                    pending.append(threads.submit(decode, chunk))
                if len(pending) > 2 * _NUM_THREADS:  # bounds the memory of what is read ahead
                    report.add(pending.popleft().result())
            for future in pending:
                report.add(future.result())
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


def _decode(
    content: bytes, size: tuple[int, int], bit_depth: int, resize: Resize
) -> tuple[UInt8[np.ndarray, "3 h w"], int | None]:
    """Return the pixels of an image, and its largest value if it has 16 bits."""
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if problem := _find_excess(image, content):
                raise UnreadableImage(problem)
            low_bytes = next((_LOW_BYTES.get(str(tile.args)) for tile in image.tile), None)
            whole = _load_whole(image, content)
            if low_bytes:
                values = _deep_colors(whole, content, low_bytes)
                scaled = _to_8_bits(values, bit_depth, whole.info.get("transparency"))
                return image_pixels(scaled, size, resize=resize), int(values[:, :, :3].max())
            max_value = int(np.asarray(whole).max()) if _is_deep_gray(whole) else None
            return image_pixels(whole, size, bit_depth, resize), max_value
    except UnreadableImage:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImage(f"is too large to be decoded safely ({error})") from error
    except Exception as error:  # Pillow's decoders raise all kinds of errors for damaged files
        reason = _find_reason(error, content)
        raise UnreadableImage(f"can't be read as a JPEG, PNG or WebP image ({reason})") from error


def _find_excess(image: Image.Image, content: bytes) -> str | None:
    """Describe a property that makes decoding too expensive, from the headers of an image; None if there is none."""
    if image.width * image.height > _MAX_PIXELS or max(image.size) > _MAX_SIDE:
        size = f"{image.width:,} x {image.height:,} pixels, at most {_MAX_PIXELS:,} in all"
        return f"is too large to be decoded safely ({size})"
    num_frames = getattr(image, "n_frames", 1)
    if num_frames > 1 and image.format != "MPO":  # a camera's JPEG with a preview beside the picture
        return f"is an animation of {num_frames:,} frames, expected one picture"
    if image.format in ("JPEG", "MPO") and content.count(_SCAN) > _MAX_SCANS:
        return f"is a JPEG of more than {_MAX_SCANS} scans, more than decoding could need"
    return None


def _load_whole(image: Image.Image, content: bytes) -> Image.Image:
    """Load the pixels; of a JPEG that lacks its end marker, if it lacks nothing else.

    If pixels are missing, the decoder takes what follows for them: then the image depends on it.
    """
    try:
        image.load()
        return image
    except OSError:
        if image.format not in ("JPEG", "MPO"):
            raise
        start = content.rstrip(b"\xff")  # perhaps half of the marker
        ended, filled = (Image.open(io.BytesIO(start + end), formats=_FORMATS) for end in (_END, _FILLER + _END))
        if ended.tobytes() != filled.tobytes():
            raise
        return ended


def _find_reason(error: Exception, content: bytes) -> str:
    if not content:
        return "it is empty"
    for start, name in _OTHER_FORMATS.items():
        if content.startswith(start):
            return f"its content is {name}"
    if isinstance(error, UnidentifiedImageError):  # whose message names an object in memory
        return "its content is something else, or its header is damaged"
    return str(error) or type(error).__name__


def _is_deep_gray(image: Image.Image) -> bool:
    """Return True for a grayscale image of 16 bits."""
    return image.mode.startswith("I")


def _deep_colors(image: Image.Image, content: bytes, low_bytes: str) -> np.ndarray:
    """Return the values of 16 bits of an upright color image, h w c, of which Pillow reads one byte at a time."""
    with Image.open(io.BytesIO(content), formats=_FORMATS) as other:
        other.tile = [other.tile[0]._replace(args=low_bytes)]
        low = np.asarray(_to_upright(other)).astype(np.uint16)
    if low_bytes == "RGBA":  # high and low byte of gray, then of alpha
        gray, alpha = low[:, :, 0] << 8 | low[:, :, 1], low[:, :, 2] << 8 | low[:, :, 3]
        return np.stack([gray, gray, gray, alpha], axis=2)
    values: np.ndarray = np.asarray(_to_upright(image)).astype(np.uint16) << 8 | low
    return values


def _to_8_bits(values: np.ndarray, bit_depth: int, transparent: Any) -> Image.Image:
    """Scale values of 16 bits, h w or h w c, to 8 bits; a level or color that counts as transparent becomes white."""
    pixels = (values >> (bit_depth - 8)).clip(0, 255).astype(np.uint8)
    if values.shape[2:] == (4,):
        pixels[:, :, 3] = values[:, :, 3] >> 8  # alpha always has all bits
    if transparent is not None:
        matches = values == transparent
        pixels[matches.all(axis=2) if values.ndim == 3 else matches] = 255
    return Image.fromarray(pixels)


def _to_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, as far as it can be read."""
    image.load()  # a PNG may have its metadata after the pixels
    try:
        method = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow's parser raises all kinds of errors for damaged metadata, which viewers ignore
        method = None
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, bit_depth: int) -> Image.Image:
    """Convert an upright image to RGB, composed on white where it is transparent."""
    if _is_deep_gray(image):  # Pillow's own conversion would clip at 255
        return _to_8_bits(np.asarray(image), bit_depth, image.info.get("transparency")).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    colors = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", colors.size, "white"), colors).convert("RGB")
