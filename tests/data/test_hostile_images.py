"""Images made to do harm, and what is no image in a folder of them: refused, at little cost."""

import io
import os
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litlab.data.image_decoder import decode_image, decode_images
from litlab.data.image_listing import list_images
from litlab.errors import UserError

pytestmark = pytest.mark.usefixtures("limited_memory")


def test_pipes_and_devices_in_folders(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    os.mkfifo(tmp_path / "train" / "cat" / "a.png")
    with pytest.raises(UserError, match=r"train/cat/a.png is not a plain file: remove it"):
        list_images(tmp_path)
    (tmp_path / "train" / "cat" / "a.png").unlink()
    (tmp_path / "train" / "cat" / "a.png").symlink_to("/dev/zero")
    with pytest.raises(UserError, match=r"train/cat/a.png is not a plain file: remove it"):
        list_images(tmp_path)
    (tmp_path / "train" / "cat" / "a.png").unlink()
    with (tmp_path / "train" / "cat" / "a.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UserError, match=r"a.png has 1,099,511,627,776 bytes, more than an image could need"):
        list_images(tmp_path)
    (tmp_path / "train" / "cat" / "a.png").unlink()
    (tmp_path / "train" / "cat" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    with pytest.raises(UserError, match="has a name that is not UTF-8"):
        list_images(tmp_path)


def encoded(image: Image.Image, form: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG of 1 bit a pixel, whatever follows of it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    start = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", start) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def many_scans() -> bytes:
    content = encoded(Image.effect_noise((64, 64), 50), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2]
    return content[:-2] + scan * 200 + content[-2:]


FRAMES = [Image.new("RGB", (16, 16), (number, 0, 0)) for number in range(40)]
BOMBS = {
    "60000 x 60000": (png(60_000, 60_000, zlib.compress(bytes(10**6))), "is too large to be decoded safely"),
    "one pixel high": (png(2**26, 1), "is too large to be decoded safely"),
    "2**31 wide": (png(2**31 - 1, 1), "is too large to be decoded safely|can't be read as"),
    "no width": (png(0, 5), "can't be read as"),
    "truncated": (encoded(Image.effect_noise((99, 99), 50), "PNG")[:-4000], "can't be read as"),
    "truncated JPEG": (encoded(Image.effect_noise((99, 99), 50), "JPEG")[:-900], "can't be read as"),
    "animated WebP": (
        encoded(FRAMES[0], "WEBP", save_all=True, append_images=FRAMES[1:]), r"is an animation of \d+ frames"
    ),
    "animated PNG": (
        encoded(FRAMES[0], "PNG", save_all=True, append_images=FRAMES[1:]), r"is an animation of \d+ frames"
    ),
    "scans": (many_scans(), "is a JPEG of more than 100 scans"),
    "GIF": (encoded(FRAMES[0], "GIF"), "can't be read as"),
    "EPS": (encoded(FRAMES[0], "EPS"), "can't be read as"),  # Pillow would start Ghostscript
    "text of gigabytes": (
        png(8, 8, zlib.compress(bytes(16))).replace(b"IEND", b"IEND", 1)[:33]
        + struct.pack(">I", 2**20 + 6) + b"zTXta\0\0" + zlib.compress(bytes(2**28)).ljust(2**20 + 3, b"\0") + bytes(4),
        "can't be read as",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_images_that_are_bombs(name: str) -> None:
    content, said = BOMBS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as decode_images does
        with pytest.raises(UserError, match=f"^here {said}"):
            decode_image(content, (8, 8), "here")


def test_orientations_that_are_none() -> None:
    for orientation in (0, 9, 2**16 - 1):
        exif = Image.Exif()
        exif[274] = orientation
        content = encoded(Image.new("RGB", (8, 4), (255, 0, 0)), "PNG", exif=exif)
        pixels = decode_image(content, (4, 8), "here")
        assert (pixels.shape, pixels[0].min(), pixels[1].max()) == ((3, 4, 8), 255, 0)


def test_a_camera_s_picture_with_a_preview() -> None:
    """Multi-picture JPEG: the first picture counts."""
    content = encoded(Image.new("RGB", (8, 4), (255, 0, 0)), "MPO", save_all=True, append_images=[FRAMES[0]])
    assert decode_image(content, (4, 8), "here")[0].min() > 250


def test_a_bomb_in_a_data_set_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("train/cat/1.png", BOMBS["60000 x 60000"][0])
    with pytest.raises(UserError, match=r"^train/cat/1.png in .*a.zip is too large to be decoded"):
        decode_images(path, {"train/cat/1.png": np.empty((3, 8, 8), np.uint8)})
