"""One image file's content -> pixels."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

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
