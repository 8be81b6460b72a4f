"""Images of every format and mode, and images made to do harm."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.damage import damaged, encode, small_images
from support.thorough import examples

from litlab.data.image_decoder import DecodingReport, decode_image, decode_images
from litlab.errors import UserError

pytestmark = pytest.mark.usefixtures("limited_memory")
PIXELS = np.random.default_rng(2).integers(0, 256, (20, 30, 3), dtype=np.uint8)
RED = Image.new("RGB", (8, 4), (255, 0, 0))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_every_format(image_format: str) -> None:
    content = encode(Image.fromarray(PIXELS), image_format)
    expected = np.asarray(Image.open(io.BytesIO(content))).transpose(2, 0, 1)
    np.testing.assert_array_equal(decode_image(content, (20, 30), "x"), expected)


@pytest.mark.filterwarnings("error")
def test_every_mode() -> None:
    gray = PIXELS[:, :, 0]
    palette = Image.fromarray(PIXELS).quantize(16)
    for image, expected in (
        (Image.fromarray(gray), np.stack([gray] * 3, axis=2)),
        (Image.fromarray(gray.astype(np.uint16) * 256 + 7), np.stack([gray] * 3, axis=2)),
        (Image.fromarray(np.concatenate([PIXELS, np.full((20, 30, 1), 255, np.uint8)], axis=2)), PIXELS),
        (palette, np.asarray(palette.convert("RGB"))),
    ):
        decoded = decode_image(encode(image, "PNG"), (20, 30), "x")
        np.testing.assert_array_equal(decoded.transpose(1, 2, 0), expected)


def test_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by a quarter clockwise
    content = encode(Image.fromarray(PIXELS), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(content, (30, 20), "x"), np.rot90(PIXELS, -1).transpose(2, 0, 1))
    for invalid in (0, 9, 2**16 - 1):
        exif[0x0112] = invalid
        pixels = decode_image(encode(RED, "PNG", exif=exif), (4, 8), "here")
        assert (pixels.shape, pixels[0].min(), pixels[1].max()) == ((3, 4, 8), 255, 0)


def test_a_camera_s_picture_with_a_preview() -> None:
    """Read the first picture of a multi-picture JPEG."""
    content = encode(RED, "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))])
    assert decode_image(content, (4, 8), "here")[0].min() > 250


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """Build a PNG of 1 bit a pixel, of any size and content."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    start = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    content = encode(Image.effect_noise((64, 64), 50), "JPEG", progressive=True)
    scan = content[content.rindex(b"\xff\xda") : -2]
    return content[:-2] + scan * 200 + content[-2:]


IMAGES = list(small_images().values())
FRAMES = [Image.new("RGB", (16, 16), (number, 0, 0)) for number in range(40)]
TOO_LARGE = "is too large to be decoded safely"
BOMBS = {
    "60000 x 60000": (png(60_000, 60_000, zlib.compress(bytes(10**6))), TOO_LARGE),
    "one pixel high": (png(2**26, 1), TOO_LARGE),
    "2**31 wide": (png(2**31 - 1, 1), f"{TOO_LARGE}|can't be read as"),
    "no width": (png(0, 5), "can't be read as"),
    "truncated": (encode(Image.effect_noise((99, 99), 50), "PNG")[:-4000], "can't be read as"),
    "truncated JPEG": (encode(Image.effect_noise((99, 99), 50), "JPEG")[:-900], "can't be read as"),
    "animated WebP": (
        encode(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), r"is an animation of \d+ frames"
    ),
    "animated PNG": (
        encode(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), r"is an animation of \d+ frames"
    ),
    "scans": (many_scans(), "is a JPEG of more than 100 scans"),
    "GIF": (encode(FRAMES[0], "GIF"), "can't be read as"),
    "EPS": (encode(FRAMES[0], "EPS"), "can't be read as"),  # Pillow would start Ghostscript
    "text of gigabytes": (
        png(8, 8, zlib.compress(bytes(16)))[:33]
        + struct.pack(">I", 2**20 + 6) + b"zTXta\0\0" + zlib.compress(bytes(2**28)).ljust(2**20 + 3, b"\0") + bytes(4),
        "can't be read as",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # as decode_images does
@pytest.mark.parametrize(("content", "message"), BOMBS.values(), ids=BOMBS)
def test_images_that_are_bombs(content: bytes, message: str) -> None:
    with pytest.raises(UserError, match=f"^here ({message})"):
        decode_image(content, (8, 8), "here")


def test_a_bomb_in_an_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train/cat/1.png", BOMBS["60000 x 60000"][0])
    report = DecodingReport()
    decode_images(path, {"train/cat/1.png": np.empty((3, 8, 8), np.uint8)}, 16, report)
    assert report.unreadable["train/cat/1.png"].startswith(TOO_LARGE)


@pytest.mark.filterwarnings("ignore")  # as decode_images does
@examples(100)
@given(st.sampled_from(IMAGES).flatmap(lambda image: damaged(image, IMAGES[0])) | st.binary(max_size=100))
def test_damaged_images(content: bytes) -> None:
    try:
        pixels, message = decode_image(content, (8, 6), "here"), "here"
    except UserError as error:
        pixels, message = np.zeros((3, 8, 6), np.uint8), str(error)
    assert message.startswith("here")
    assert (pixels.shape, pixels.dtype) == ((3, 8, 6), np.uint8)
