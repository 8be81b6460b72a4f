import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from litlab.data.archive import archive_members, is_archive
from litlab.errors import UserError

CONTENT = {"top/a.txt": b"first", "top/b/c.bin": bytes(range(256)) * 9}


def write_tar(path: Path, entries: list[tuple[tarfile.TarInfo, bytes]], mode: str = "w") -> None:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


@pytest.mark.parametrize(
    ("suffix", "mode"), [("tar", ""), ("tar.gz", "gz"), ("tgz", "gz"), ("tar.xz", "xz"), ("tar.bz2", "bz2")]
)
def test_reads_every_kind_of_tar(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"data.{suffix}"
    entries = [(tar_entry("top", tarfile.DIRTYPE), b"")] + [
        (tar_entry(name), content) for name, content in CONTENT.items()
    ]
    write_tar(path, entries, f"w:{mode}")
    assert is_archive(path)
    assert {str(member.path): member.read() for member in archive_members(path)} == CONTENT


def test_reads_zip(tmp_path: Path) -> None:
    path = tmp_path / "data.ZIP"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("top")
        for name, content in CONTENT.items():
            archive.writestr(name, content)
    assert is_archive(path)
    assert {str(member.path): member.read() for member in archive_members(path)} == CONTENT
    assert not is_archive(tmp_path / "data.txt")


@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_refuses_paths_that_leave(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / f"data.{kind}"
    if kind == "tar":
        write_tar(path, [(tar_entry(name), b"x")])
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(UserError, match="evil' leaves the archive: refused") as caught:
        list(archive_members(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "word"),
    [
        (tarfile.SYMTYPE, "a link"),
        (tarfile.LNKTYPE, "a link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.FIFOTYPE, "a device"),
    ],
)
def test_refuses_what_is_no_plain_file(tmp_path: Path, kind: bytes, word: str) -> None:
    write_tar(tmp_path / "data.tar", [(tar_entry("odd", kind, "/etc/passwd"), b"")])
    with pytest.raises(UserError, match=f"odd is {word}"):
        list(archive_members(tmp_path / "data.tar"))


def test_refuses_links_in_zip(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("odd")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="odd is a link: refused"):
        list(archive_members(tmp_path / "data.zip"))


def test_refuses_bombs(tmp_path: Path) -> None:
    path = tmp_path / "data.tar"
    write_tar(path, [(tar_entry(name), b"12345") for name in "abc"])
    with pytest.raises(UserError, match="more than 2 members"):
        list(archive_members(path, max_members=2))
    with pytest.raises(UserError, match=r"unpacks to more than 14 bytes \(at c\)"):
        list(archive_members(path, max_total_bytes=14))
    huge = tar_entry("huge")
    huge.size = 2**30
    path.write_bytes(huge.tobuf())
    with pytest.raises(UserError, match=r"huge unpacks to .* bytes.*refused"):
        list(archive_members(path))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>" * 50)


@pytest.mark.parametrize("damage", [cut, replace])
@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.xz", "tar.bz2", "zip"])
def test_damaged(tmp_path: Path, kind: str, damage: Callable[[Path], None]) -> None:
    path = tmp_path / f"data.{kind}"
    noise = os.urandom(200_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("noise", noise)
    else:
        write_tar(path, [(tar_entry("noise"), noise)], f"w:{kind.partition('.')[2]}")
    damage(path)
    with pytest.raises(UserError, match=f"{kind} is damaged or not of the type its name says"):
        [member.read() for member in archive_members(path)]
