import os
import tarfile
import zipfile
from pathlib import Path

import pytest

from litlab.data.image_listing import list_images
from litlab.errors import UserError


def test_files_that_can_not_be_used(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "cat").mkdir(parents=True)
    path = tmp_path / "train" / "cat" / "a.png"

    def assert_refused(message: str) -> None:
        with pytest.raises(UserError, match=message):
            list_images(tmp_path)
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
        list_images(path)


def test_nested_archives_are_not_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("../evil.png", b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(tmp_path / "inner.zip", "train/cat/inner.zip")
    assert list_images(tmp_path / "a.tar") == []
