import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from support.images import LAYOUT

from litlab.data.archive import ZipReader, archive_members
from litlab.data.image_listing import ImageListing, list_images
from litlab.errors import UserError


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    path = tmp_path / "train" / "cat" / "a.png"

    def assert_refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            list_images(tmp_path, LAYOUT)
        path.unlink(missing_ok=True)

    os.mkfifo(path)
    assert_refused(r"train/cat/a.png is not a plain file: remove it")
    path.symlink_to("/dev/zero")
    assert_refused(r"train/cat/a.png is not a plain file: remove it")
    with path.open("wb") as file:
        file.truncate(2**40)
    assert_refused(r"a.png has 1,099,511,627,776 bytes, more than an image could need")
    (path.parent / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    assert_refused("has a name that is not UTF-8")
    (path.parent / os.fsdecode(b"\xff.png")).unlink()
    path.symlink_to("..")
    assert_refused(r"train/cat/a\.png/cat/a\.png/.{0,200}\.\.\. leads back to itself by a link: remove the link")


@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_a_name_that_occurs_twice(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    names = ["train/cat/1.png", "train/cat/./1.png"]
    if suffix == "tar":
        path.write_bytes(b"".join(tarfile.TarInfo(name).tobuf() for name in names) + bytes(1024))
    else:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"x")
    with pytest.raises(UserError, match=r"holds train/cat/1\.png twice: remove one of them"):
        list_images(path, LAYOUT)


def test_nested_archives_are_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("../evil.png", b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "inner.zip", "train/cat/inner.zip")
    assert list_images(tmp_path / "a.tar", LAYOUT) == []


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


NAMES = tuple(f"{split}/{name}/0.png" for split in ("train", "test") for name in ("cat", "dog"))
CLUTTER = (
    "@eaDir/train/cat/x.png", "train/@eaDir/cat/x.jpg", "train/cat/@eaDir/0.png/THUMB_M.jpg",
    "train/__MACOSX/x/._0.png", "train/cat/Thumbs.db", "train/cat/.DS_Store", "test/.hidden/x.png",
    "test/dog/.x.png", "train/cat/desktop.ini",
)  # fmt: skip


@pytest.mark.parametrize("pack", [False, True])
def test_files_of_file_managers_are_ignored_and_other_types_counted(tmp_path: Path, pack: bool) -> None:
    root = tmp_path / "images"
    write(root, *NAMES, *CLUTTER, "train/dog/1.jfif")
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", root)) if pack else root
    listing = ImageListing.of(path, LAYOUT)
    assert listing.train.paths.tolist() == [b"train/cat/0.png", b"train/dog/0.png", b"train/dog/1.jfif"]
    assert (listing.class_names, listing.notes) == (("cat", "dog"), ())
    write(root, "train/cat/a.bmp", "train/cat/b.tif", "test/dog/c.GIF", "test/dog/d.gif", "train/README.md")
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", root)) if pack else root
    listing = ImageListing.of(path, LAYOUT)
    assert listing.notes == ("left out: 4 files (.bmp, .gif, .tif): JPEG, PNG and WebP are read",)
    for name in NAMES:
        (root / name).rename(root / name.replace("png", "tif"))
    (root / "train/dog/1.jfif").unlink()
    with pytest.raises(UserError, match=r"no images in train/<class>/ \(left out: 8 files \(\.bmp, \.gif, \.tif\)"):
        ImageListing.of(root, LAYOUT)


class RawName(zipfile.ZipInfo):
    """Member of a zip archive that does not tell the encoding of its name."""

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  # of zipfile
        return self.filename.encode("cp437"), 0


def write_zip(path: Path, names: Iterable[bytes], system: int = 0) -> None:
    """Write a zip archive of images whose names are stored in these bytes."""
    with zipfile.ZipFile(path, "w") as packed:
        for name in names:
            entry = RawName(name.decode("cp437"))
            entry.create_system = system
            packed.writestr(entry, b"x")


def test_backslashes_of_a_zip_archive_separate_folders(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write_zip(path, [name.replace("/", "\\").encode() for name in NAMES])
    listing = ImageListing.of(path, LAYOUT)
    assert (listing.class_names, len(listing.train.paths), len(listing.test.paths)) == (("cat", "dog"), 2, 2)
    contents = {str(member.path): member.read() for member in archive_members(path)}
    assert contents == dict.fromkeys(NAMES, b"x")
    assert ZipReader(path).read(NAMES[0]) == b"x"


CHINESE, JAPANESE, FRENCH = ("猫咪", "小狗"), ("ねこ", "ツグミ"), ("chaton bâillé", "épagneul")


@pytest.mark.parametrize(
    ("classes", "stored", "system", "setting"),
    [
        (CHINESE, "gbk", 0, "gbk"),
        (JAPANESE, "shift_jis", 0, "cp932"),
        (FRENCH, "cp437", 0, None),
        (FRENCH, "utf-8", 3, None),
        (CHINESE, "utf-8", 3, None),
    ],
)
def test_names_of_classes_in_old_encodings(
    tmp_path: Path, classes: tuple[str, str], stored: str, system: int, setting: str | None
) -> None:
    path = tmp_path / "a.zip"
    names = [f"{split}/{name}/0.png" for split in ("train", "test") for name in classes]
    write_zip(path, [name.encode(stored) for name in names], system)
    if setting is not None:  # another encoding gives words, too
        with pytest.raises(UserError, match=r"set data\.encoding to .* pack it again with names in UTF-8") as refused:
            ImageListing.of(path, LAYOUT)
        assert any(f"{setting} for {name}" in str(refused.value) for name in classes)
    listing = ImageListing.of(path, replace(LAYOUT, encoding=setting))
    assert listing.class_names == tuple(sorted(classes))
    contents = {str(member.path) for member in archive_members(path)}
    assert {name.decode() for name in listing.train.paths} < contents, "which its reader finds"


def test_an_encoding_that_can_not_be(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    write_zip(path, [f"{split}/{name}/0.png".encode("gbk") for split in ("train", "test") for name in CHINESE])
    for encoding in ("ascii", "klingon", "hex"):
        with pytest.raises(UserError, match=rf"data\.encoding={encoding} can't be that of the names in"):
            ImageListing.of(path, replace(LAYOUT, encoding=encoding))


def test_accents_of_classes_are_equal_however_they_are_stored(tmp_path: Path) -> None:
    composed, taken_apart = "bâillé", "ba\u0302ille\u0301"
    write(tmp_path, f"train/{taken_apart}/0.png", "train/chat/0.png", f"test/{composed}/0.png", "test/chat/0.png")
    listing = ImageListing.of(tmp_path, LAYOUT)
    assert (listing.class_names, listing.notes) == ((composed, "chat"), ())
    assert listing.train.paths[0].decode() == f"train/{taken_apart}/0.png"
    assert listing.test.labels.tolist() == [0, 1]
