"""One image file's content -> pixels."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps

from litlab.errors import UserError

_FORMATS = ("JPEG", "PNG", "WEBP")  # Pillow goes by the content, and knows formats that nobody asked for
_MAX_PIXELS = 2**26  # 200 MB as RGB; a little before Pillow begins to warn of decompression bombs


def decode_image(content: bytes, size: tuple[int, int], where: str) -> UInt8[np.ndarray, "3 h w"]:
    """RGB pixels of an upright JPEG, PNG or WebP image of any mode.

    size: height and width; an image of another size is resized (bilinear, antialiased).
    Raises UserError, beginning with `where`, for anything else and for images of more than 2**26 pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            return image_pixels(image, size)
    except Image.DecompressionBombError as error:
        raise UserError(f"{where} is too large an image to be decoded safely ({error}): shrink or remove it") from error
    except Exception as error:  # damaged files raise all kinds of errors in Pillow's decoders
        raise UserError(f"{where} can't be read as a JPEG, PNG or WebP image ({error}): repair or remove it") from error


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
        levels = np.asarray(upright).astype(np.int64) >> 8
        upright = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    return upright.convert("RGB")
