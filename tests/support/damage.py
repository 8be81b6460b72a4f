"""Random damage to files, for hypothesis."""

import io

import numpy as np
from hypothesis import strategies as st
from PIL import Image


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    """Encode an image as a file of this format."""
    content = io.BytesIO()
    image.save(content, image_format, **options)
    return content.getvalue()


def small_images() -> dict[str, bytes]:
    """Return images of noise in all formats that are read, some of them rotated by their EXIF orientation."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    return {
        "jpeg": encode(image, "JPEG", exif=exif),
        "progressive": encode(image, "JPEG", progressive=True),
        "png": encode(image, "PNG", exif=exif),
        "webp": encode(image, "WEBP", exif=exif),
        "lossless": encode(image, "WEBP", lossless=True),
    }


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, other: bytes) -> bytes:
    """Draw pieces to flip, cut out, fill with one byte, double or take from another file; perhaps truncate."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        end = min(len(content), start + draw(st.sampled_from([1, 2, 4, 12, 512])))
        piece = content[start:end]
        changes = (
            bytes(byte ^ draw(st.integers(0, 255)) for byte in piece[:4]) + piece[4:],
            b"", b"\0" * len(piece), b"\xff" * len(piece), piece * 2, other[start:end],
        )  # fmt: skip
        content[start:end] = draw(st.sampled_from(changes))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)
