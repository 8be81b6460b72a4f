"""No archive and no image, however damaged, ends in anything but data or our own error, and nothing is written."""

import bz2
import gzip
import io
import lzma
import tarfile
import warnings
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from support.thorough import examples

from litlab.data.archive import archive_members
from litlab.data.cifar10 import parse_binary, parse_pickle
from litlab.data.image_decoder import decode_image, decode_images
from litlab.data.image_listing import list_images
from litlab.errors import UserError

KINDS = ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip")


def encoded(form: str, **options: object) -> bytes:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    content = io.BytesIO()
    image.save(content, form, **options)
    return content.getvalue()


@cache
def images() -> dict[str, bytes]:
    exif = Image.Exif()
    exif[274] = 6
    return {
        "jpeg": encoded("JPEG", exif=exif),
        "progressive": encoded("JPEG", progressive=True),
        "png": encoded("PNG", exif=exif),
        "webp": encoded("WEBP", exif=exif),
        "lossless": encoded("WEBP", lossless=True),
    }


@cache
def archives() -> dict[str, bytes]:
    """With a long name, so that there is an extended header, and two images."""
    names = [f"train/cat/{'long' * 40}.png", "train/dog/b.jpg", "test/cat/c.webp"]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as file:
        for name, image in zip(names, images().values(), strict=False):
            entry = tarfile.TarInfo(name)
            entry.size = len(image)
            file.addfile(entry, io.BytesIO(image))
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, image in zip(names, images().values(), strict=False):
            archive.writestr(name, image)
    plain = content.getvalue()
    packed = (plain, gzip.compress(plain), lzma.compress(plain), bz2.compress(plain), zipped.getvalue())
    return dict(zip(KINDS, packed, strict=True))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes, other: bytes) -> bytes:
    """Pieces flipped, cut out, filled with one byte, doubled, or taken from another file; perhaps cut off."""
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


def look_at(path: Path) -> None:
    """All that litlab does with an archive; then nothing else lies in its folder."""
    try:
        files = list_images(path)
        for member in archive_members(path):
            assert len(member.read()) == member.num_bytes
        decode_images(path, {file.path: np.empty((3, 8, 8), np.uint8) for file in files})
    except UserError:
        pass
    assert [each.name for each in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", KINDS)
def test_intact_archives_are_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    path.write_bytes(archives()[kind])
    assert [member.read() for member in archive_members(path)] == list(images().values())[:3]
    assert len(list_images(path)) == 3
    look_at(path)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_archives(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"

    @examples(40)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        path.write_bytes(data.draw(damaged(archives()[kind], archives()["tar"])))
        look_at(path)

    check()


@pytest.mark.parametrize("kind", ["gz", "xz", "bz2"])
def test_damaged_archives_well_packed(kind: str, tmp_path: Path) -> None:
    """So that the damage is met by the reader of the tar, not by a checksum."""
    path = tmp_path / f"a.tar.{kind}"
    pack = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}[kind]

    @examples(25)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        path.write_bytes(pack(data.draw(damaged(archives()["tar"], archives()["zip"]))))
        look_at(path)

    check()


@pytest.mark.parametrize("kind", KINDS)
def test_random_bytes_as_archive(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    starts = st.sampled_from([b"", b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])

    @examples(25)
    @given(starts, st.binary(max_size=600))
    def check(start: bytes, rest: bytes) -> None:
        path.write_bytes(start + rest)
        look_at(path)

    check()


@examples(100)
@given(st.data())
def test_damaged_images(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(images())))
    content = data.draw(damaged(images()[form], images()["png"]) | st.binary(max_size=100))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as decode_images does
        try:
            pixels = decode_image(content, (8, 6), "here")
        except UserError as error:
            said = str(error)
        else:
            said = "here"
            assert (pixels.shape, pixels.dtype) == ((3, 8, 6), np.uint8)
    assert said.startswith("here")


@examples(60)
@given(st.data())
def test_damaged_batches_of_cifar10(data: st.DataObject) -> None:
    import pickle

    whole = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=4)
    content = data.draw(damaged(whole, b"\x80\x04cos\nsystem\nV" * 200) | st.binary(max_size=60))
    for parse in (parse_pickle, parse_binary):
        try:
            pixels, labels = parse(content, "here")
        except UserError:
            continue
        assert len(pixels) == len(labels)
