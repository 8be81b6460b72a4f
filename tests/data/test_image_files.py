"""Image files as people have them: transparent, of 16 bits, with bad metadata, incomplete, damaged."""

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.damage import encode
from support.images import write_folder

from litlab.data.dataset_info import DatasetInfo
from litlab.data.image_decoder import decode_image
from litlab.data.image_folder import ImageFolder
from litlab.errors import UserError

Make = Callable[..., ImageFolder]
SIZE = 24
NOISE = np.random.default_rng(2).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write 2 + 1 images for each of three classes."""
    write_folder(tmp_path / "images", 2, 1)
    return tmp_path / "images"


@pytest.fixture(params=["memory", "stream"])
def make(request: pytest.FixtureRequest, folder_module: Make) -> Make:
    """Return a factory of prepared modules, with each storage in turn."""

    def made(**changes: Any) -> ImageFolder:
        module = folder_module(**{"val_size": 0, "storage": request.param, **changes})
        module.prepare_data()
        module.setup()
        return module

    return made


def pixels_of_test(module: ImageFolder) -> np.ndarray:
    """Return the pixels of all test images, as a batch of the loader has them."""
    (batch,) = module.test_dataloader()
    return np.asarray(batch.images)


def decoded(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        height, width = image.height, image.width
    return decode_image(content, (height, width), "here").transpose(1, 2, 0)


# Transparent images


def cut_outs() -> dict[str, bytes]:
    """Draw a black square of 8 pixels in the middle of 24 transparent ones, in all modes with transparency."""
    opaque = np.zeros((SIZE, SIZE), np.uint8)
    opaque[8:16, 8:16] = 255
    rgba = Image.fromarray(np.stack([np.zeros_like(opaque)] * 3 + [opaque], axis=2))
    la = Image.fromarray(np.stack([np.zeros_like(opaque), opaque], axis=2), "LA")
    keyed = Image.fromarray(np.where(opaque, 0, 7).astype(np.uint8))  # a level that counts as transparent
    palette = Image.fromarray(np.where(opaque, 0, 1).astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, 0, 0, 0])
    deep = Image.fromarray(np.where(opaque, 0, 700).astype(np.uint16))
    return {
        "RGBA": encode(rgba, "PNG"),
        "LA": encode(la, "PNG"),
        "palette": encode(palette, "PNG", transparency=1),
        "palette with alpha": encode(palette, "PNG", transparency=b"\xff\x00"),
        "RGB with a color": encode(keyed.convert("RGB"), "PNG", transparency=(7, 7, 7)),
        "gray with a level": encode(keyed, "PNG", transparency=7),
        "16 bits with a level": encode(deep, "PNG", transparency=700),
        "WebP": encode(rgba, "WEBP", lossless=True),
    }


@pytest.mark.parametrize("mode", cut_outs())
def test_transparent_images_are_composed_on_white(mode: str) -> None:
    pixels = decoded(cut_outs()[mode]).copy()
    assert (pixels[8:16, 8:16] == 0).all()
    pixels[8:16, 8:16] = 255
    assert (pixels == 255).all()


def test_half_transparent_pixels_are_mixed_with_white_before_resizing(root: Path, make: Make) -> None:
    for path in (root / "test").glob("*/*"):
        Image.new("RGBA", (48, 48), (0, 100, 255, 51)).save(path.with_suffix(".png"))
        path.unlink()
    (pixels,) = np.unique(pixels_of_test(make()).transpose(0, 2, 3, 1).reshape(-1, 3), axis=0)
    assert pixels.tolist() == [204, 224, 255]


# 16 bits


def write_deep(root: Path, values: dict[str, int]) -> dict[str, np.ndarray]:
    """Replace images by grayscale PNGs of 16 bits with values from 0 to the given one; return these."""
    written = {}
    for path in sorted(root.glob("*/*/*")):
        split = path.relative_to(root).parts[0]
        gray = np.linspace(0, values[split], SIZE * SIZE).round().astype(np.uint16).reshape(SIZE, SIZE)
        Image.fromarray(gray).save(path.with_suffix(".png"))
        if path.suffix != ".png":
            path.unlink()
        written[split] = gray
    return written


@pytest.mark.parametrize(
    ("largest", "bit_depth"), [({"train": 1000, "test": 900}, 10), ({"train": 4095, "test": 9999}, 12)]
)
def test_16_bits_are_scaled_by_the_range_of_the_training_images(
    root: Path, make: Make, largest: dict[str, int], bit_depth: int
) -> None:
    gray = write_deep(root, largest)
    module = make()
    assert module.info.bit_depth == bit_depth
    expected = np.minimum(gray["test"] // 2 ** (bit_depth - 8), 255)
    assert (pixels_of_test(module) == expected).all()
    assert module.info.mean[0] > 0.4, "of the scaled images"
    white = f"{2**bit_depth - 1:,}"
    assert module.info.notes == (f"16-bit images are scaled from {bit_depth} bits: {white} is white (data.bit_depth)",)
    assert DatasetInfo.from_dict(json.loads(json.dumps(module.info.to_dict()))) == module.info


def test_the_bit_depth_can_be_set_and_is_16_for_images_that_use_them_all(root: Path, make: Make) -> None:
    gray = write_deep(root, {"train": 4095, "test": 4095})
    assert (pixels_of_test(make(bit_depth=14)) == gray["test"] // 64).all()
    gray = write_deep(root, {"train": 65535, "test": 4095})
    module = make()
    assert (module.info.bit_depth, module.info.notes) == (16, ())
    assert (pixels_of_test(module) == gray["test"] // 256).all()


def test_images_of_8_bits_have_no_bit_depth_and_stay_beside_deep_ones(root: Path, make: Make) -> None:
    before = make()
    assert (before.info.bit_depth, before.info.notes) == (None, ())
    Image.fromarray(np.full((SIZE, SIZE), 1023, np.uint16)).save(root / "train" / "cat" / "deep.png")
    after = make()
    assert after.info.bit_depth == 10
    assert np.array_equal(pixels_of_test(after), pixels_of_test(before))


def deep_png(values: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """Write a color PNG of 16 bits, h w c, which Pillow can't, with further chunks before the pixels."""
    height, width, num_channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[num_channels], 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n"
    for name, data in ((b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")):
        content += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return content


def test_colors_of_16_bits_are_scaled_like_gray(root: Path, make: Make) -> None:
    colors = np.random.default_rng(0).integers(0, 2**11, (SIZE, SIZE, 3), dtype=np.uint16)
    for path in [*root.glob("*/*/*")]:
        path.unlink()
        path.with_suffix(".png").write_bytes(deep_png(colors))
    module = make()
    assert module.info.bit_depth == 11
    assert (pixels_of_test(module) == (colors // 8).transpose(2, 0, 1)).all()


def test_transparent_gray_of_16_bits(root: Path, make: Make) -> None:
    gray = np.random.default_rng(0).integers(0, 2**12, (SIZE, SIZE), dtype=np.uint16)
    alpha = np.where(np.arange(SIZE) < 8, 0, 2**16 - 1).astype(np.uint16)
    for path in [*root.glob("*/*/*")]:
        path.unlink()
        path.with_suffix(".png").write_bytes(deep_png(np.stack(np.broadcast_arrays(gray, alpha), axis=2)))
    module = make()
    assert module.info.bit_depth == 12
    assert (pixels_of_test(module) == np.where(alpha, gray // 16, 255)).all()


def test_transparent_colors_of_16_bits() -> None:
    colors = np.full((SIZE, SIZE, 4), 2**16 - 1, np.uint16)
    colors[:8], colors[8:, :, 3] = 700, 0
    expected = np.full((SIZE, SIZE, 3), 255)
    assert (decoded(deep_png(colors))[8:] == 255).all()
    key = (b"tRNS", struct.pack(">HHH", 700, 700, 700))
    assert (decoded(deep_png(colors[:, :, :3], key)) == expected).all()


# Metadata


def jpeg_with_exif(*entries: bytes) -> bytes:
    """Encode a JPEG with these entries of 12 bytes, and the rational number -1/0 behind them."""
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0) + struct.pack("<ii", -1, 0)
    return encode(Image.fromarray(NOISE), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0" + directory)


@pytest.mark.filterwarnings("ignore")  # as decode_images does
def test_metadata_that_cannot_be_read_do_not_matter() -> None:
    plain = decoded(encode(Image.fromarray(NOISE), "JPEG"))
    orientation = struct.pack("<HHII", 0x0112, 3, 1, 6)
    resolution = struct.pack("<HHII", 0x011A, 10, 1, 8 + 2 + 24 + 4)  # where -1/0 is
    content = jpeg_with_exif(orientation, resolution)
    upright = decode_image(content, (60, 40), "here").transpose(1, 2, 0)
    np.testing.assert_array_equal(upright, np.rot90(plain, -1))
    for exif in (b"Exif\0\0garbage", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        np.testing.assert_array_equal(decoded(encode(Image.fromarray(NOISE), "JPEG", exif=exif)), plain)


# Incomplete JPEGs


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("ending", [b"", b"\xff", bytes(100)], ids=["none", "half", "zeros"])
def test_a_jpeg_without_its_end_marker_is_whole(progressive: bool, ending: bytes) -> None:
    content = encode(Image.fromarray(NOISE), "JPEG", progressive=progressive)
    np.testing.assert_array_equal(decoded(content[:-2] + ending), decoded(content))


@pytest.mark.parametrize("num_bytes", [5, 10, 30, 500])
def test_a_jpeg_that_lacks_pixels_is_refused(num_bytes: int) -> None:
    with pytest.raises(UserError, match="here can't be read as a JPEG"):
        decoded(encode(Image.fromarray(NOISE), "JPEG")[:-num_bytes])


# Unreadable files


def write_unreadable(root: Path) -> dict[str, str]:
    """Write files that are no usable images; return what is said of each."""
    image = Image.fromarray(NOISE)
    frames = {"save_all": True, "append_images": [Image.new("RGB", (60, 40))]}
    files = {
        "train/cat/animated.webp": (encode(image, "WEBP", **frames), "is an animation of 2 frames"),
        "train/cat/bitmap.jpg": (encode(image, "BMP"), "(its content is BMP)"),
        "train/dog/empty.png": (b"", "(it is empty)"),
        "train/dog/gif.jpg": (encode(image, "GIF"), "(its content is GIF)"),
        "train/dog/page.jpg": (b"<!DOCTYPE html>", "(its content is something else, or its header is damaged)"),
        "test/emu/half.jpg": (encode(image, "JPEG")[:1500], "can't be read as a JPEG, PNG or WebP image ("),
        "test/emu/panorama.png": (
            encode(Image.new("1", (14_000, 5_000)), "PNG"),
            "is too large to be decoded safely (14,000 x 5,000 pixels, at most 67,108,864 in all)",
        ),
    }
    for path, (content, _) in files.items():
        (root / path).write_bytes(content)
    return {path: reason for path, (_, reason) in files.items()}


def test_unreadable_files_are_listed_at_once_or_left_out(root: Path, make: Make, tmp_path: Path) -> None:
    before = make()
    reasons = write_unreadable(root)
    with pytest.raises(UserError) as refused:
        make()
    first, *lines, last = str(refused.value).splitlines()
    assert first == f"{root}: 7 of 16 images can't be used:"
    assert last == "Replace or remove them, or set data.skip_unreadable=true to leave them out"
    for line, path in zip(lines, sorted(reasons), strict=True):
        assert line.startswith(f"  {path} ")
        assert reasons[path] in line
    assert "BytesIO" not in str(refused.value)

    skipping = make(skip_unreadable=True)
    assert skipping.info.skipped == tuple(sorted(reasons))
    assert skipping.info.fingerprint == before.info.fingerprint
    assert np.array_equal(pixels_of_test(skipping), pixels_of_test(before))
    (note,) = skipping.info.notes
    assert note.startswith("left out, since they can't be decoded (data.skip_unreadable=true): test/emu/half.jpg, ")
    assert note.endswith(" and 2 more, all in dataset.json")
    assert make(skip_unreadable=True).info == skipping.info, "from the cache"
    assert DatasetInfo.from_dict(json.loads(json.dumps(skipping.info.to_dict()))) == skipping.info
    with pytest.raises(UserError, match="7 of 16 images"):
        make()


def test_many_unreadable_files_are_counted(root: Path, make: Make) -> None:
    for number in range(41):
        (root / "train" / "cat" / f"bad-{number:02}.jpg").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"41 of 50 images") as refused:
        make()
    assert len(str(refused.value).splitlines()) == 23
    assert "\n  and 21 more\n" in str(refused.value)


def test_a_class_without_a_readable_image_is_refused(root: Path, make: Make) -> None:
    for path in (root / "train" / "emu").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"train/emu/00\.jpg and all other images of emu in its split can't be decoded"):
        make(skip_unreadable=True)


def test_skipping_and_scaling_together(root: Path, make: Make) -> None:
    gray = write_deep(root, {"train": 1023, "test": 1023})
    (root / "train" / "cat" / "bad.png").write_bytes(b"no image")
    module = make(skip_unreadable=True)
    assert (module.info.bit_depth, module.info.skipped) == (10, ("train/cat/bad.png",))
    assert (pixels_of_test(module) == gray["test"] // 4).all()
    assert len(module.info.notes) == 2


def test_a_validation_folder_counts_neither_for_the_bit_depth_nor_for_the_mean(root: Path, make: Make) -> None:
    write_deep(root, {"train": 1023, "test": 1023})
    expected = make().info
    for class_name in expected.class_names:
        (root / "val" / class_name).mkdir(parents=True)
        Image.fromarray(np.full((SIZE, SIZE), 4095, np.uint16)).save(root / "val" / class_name / "0.png")
    (root / "val" / "dog" / "bad.png").write_bytes(b"no image")
    module = make(skip_unreadable=True)
    assert (module.info.bit_depth, module.info.num_val, module.info.skipped) == (10, 3, ("val/dog/bad.png",))
    assert (module.info.mean, module.info.std) == (expected.mean, expected.std)
    (batch,) = module.val_dataloader()
    assert (batch.images == 255).all()
    assert batch.labels.tolist() == [0, 1, 2]
