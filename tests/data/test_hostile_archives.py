"""Archives made to do harm: nothing is written, little memory is taken, and all ends in our own error."""

import bz2
import gzip
import lzma
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import pytest

from litlab.data import archive
from litlab.data.archive import archive_members
from litlab.data.image_listing import list_images
from litlab.errors import UserError

pytestmark = pytest.mark.usefixtures("limited_memory")


def header(name: str, size: int = 0, kind: bytes = tarfile.REGTYPE) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type = size, kind
    return entry.tobuf(tarfile.GNU_FORMAT)


def read_all(path: Path) -> None:
    for member in archive_members(path):
        member.read()


def refused(path: Path, said: str) -> None:
    """By listing and by reading; in a limited address space, where memory runs out before the error is ours."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(UserError, match=said):
        read_all(path)
    assert sorted(path.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_header_of_2_gb(tmp_path: Path, kind: bytes) -> None:
    """A tar's own reader takes it into memory as a whole."""
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header("././@x", 2**31, kind) + bytes(2**24))
    refused(path, r"has headers of more than 1,048,576 bytes: refused")


def test_headers_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    record = b"20 comment=xxxxxxxxx\n".ljust(512, b"\0")
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(5000):
            file.write(header("././@PaxHeader", 21, tarfile.XGLTYPE) + record)
    refused(path, "has headers of more than|recursion")


def test_a_map_of_holes_without_end(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    start = bytearray(header("sparse", 512, tarfile.GNUTYPE_SPARSE))
    start[482], start[483:495] = 1, b"0" * 11 + b"\0"  # extended
    start[148:156] = b"%06o\0 " % sum(start[:148] + b" " * 8 + start[156:])
    extension = (b"00000000000\0" * 42)[:504] + b"\1" + bytes(7)
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(start)
        for _ in range(20_000):
            file.write(extension)
    refused(path, "has headers of more than 1,048,576 bytes: refused")


def test_sparse_members(tmp_path: Path) -> None:
    path = tmp_path / "data.tar"
    records = b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n" + b"31 GNU.sparse.realsize=9999999\n"
    content = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
    start = header("././@PaxHeader", len(records), tarfile.XHDTYPE) + records.ljust(512, b"\0")
    path.write_bytes(start + header("hole.png", 513) + content + bytes(1024))
    refused(path, "hole.png is sparse: refused")


def test_a_small_file_that_unpacks_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MIN_RATIO_BYTES", 2**20)
    content = b"".join(header(f"{number}.png", 2**18) + bytes(2**18) for number in range(9))
    for name, packed in (("a.tar.gz", gzip.compress(content)), ("a.tar.bz2", bz2.compress(content))):
        (tmp_path / name).write_bytes(packed)
        refused(tmp_path / name, r"unpacks to more than 1,048,576 bytes \(at 4.png\): refused")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for number in range(9):
            file.writestr(f"{number}.png", bytes(2**18))
    refused(tmp_path / "a.zip", r"unpacks to more than 1,048,576 bytes \(at 4.png\): refused")


def test_folders_count(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(header("a/", 0, tarfile.DIRTYPE) * 9 + bytes(1024))
    with pytest.raises(UserError, match="more than 8 members"):
        list(archive_members(tmp_path / "a.tar", max_members=8))


def test_xz_that_asks_for_gigabytes(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
    packed = bytearray(lzma.compress(header("a.png", 3) + b"abc".ljust(512, b"\0"), filters=filters))
    assert packed[16] == 16  # the size of the dictionary, in the header of the first block
    packed[16] = 40  # 4 GB
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    (tmp_path / "a.tar.xz").write_bytes(packed)
    refused(tmp_path / "a.tar.xz", "Memory usage limit exceeded")


def test_xz_in_several_streams(tmp_path: Path) -> None:
    content = header("a.png", 700) + b"abc".ljust(1024, b"\0") + bytes(1024)
    parts = [lzma.compress(content[start : start + 300]) for start in range(0, len(content), 300)]
    (tmp_path / "a.tar.xz").write_bytes(bytes(4).join(parts) + bytes(8))
    assert [member.read() for member in archive_members(tmp_path / "a.tar.xz")] == [b"abc".ljust(700, b"\0")]


def zip_of(path: Path, content: bytes, name: str = "a.png", compression: int = zipfile.ZIP_DEFLATED) -> bytearray:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(name, content)
    return bytearray(path.read_bytes())


def test_zip_that_understates_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archived,
        archived.open("a.png", "w") as file,
    ):
        for _ in range(800):
            file.write(bytes(2**20))
    written = bytearray(path.read_bytes())
    index = written.index(b"PK\x01\x02")
    for place in (22, index + 24):
        written[place : place + 4] = struct.pack("<I", 100)
    path.write_bytes(written)
    refused(path, r"is damaged or not of the type its name says \(Bad CRC-32 for file 'a.png'\)")


def test_zip_that_overstates_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    written = zip_of(path, bytes(1000))
    index = written.index(b"PK\x01\x02")
    for size, said in ((2000, "damaged"), (2**32 - 2, "a.png unpacks to 4,294,967,294 bytes: refused")):
        for place in (22, index + 24):
            written[place : place + 4] = struct.pack("<I", size)
        path.write_bytes(written)
        refused(path, said)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_by_methods_that_know_no_limit(tmp_path: Path, method: int) -> None:
    zip_of(tmp_path / "a.zip", bytes(1000), compression=method)
    refused(tmp_path / "a.zip", f"a.png is compressed by method {method}: pack it with deflate")


def test_encrypted_zip(tmp_path: Path) -> None:
    written = zip_of(tmp_path / "a.zip", b"abc")
    index = written.index(b"PK\x01\x02")
    written[6] |= 1
    written[index + 8] |= 1
    (tmp_path / "a.zip").write_bytes(written)
    refused(tmp_path / "a.zip", "encrypted")


def test_zip_with_an_index_of_gigabytes(tmp_path: Path) -> None:
    written = zip_of(tmp_path / "a.zip", b"abc")
    end = written.index(b"PK\x05\x06")
    index = bytes(written[written.index(b"PK\x01\x02") : end])
    with (tmp_path / "a.zip").open("wb") as file:
        file.write(written[: -len(index) - 22])
        file.truncate(2**29)
        file.seek(2**29)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, 2**29 - 100, 100, 0))
    refused(tmp_path / "a.zip", "an index of 536,870,812 bytes")


def test_nested_archives_are_not_opened(tmp_path: Path) -> None:
    inner = tmp_path / "inner.zip"
    zip_of(inner, b"x", "../evil.png")
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.add(inner, "train/cat/inner.zip")
    assert list_images(tmp_path / "a.tar") == []


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[31m.png", "a\udcff.png", "x" * 5000, "a\x85.png"])
def test_names_that_are_none(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(tarfile.TarInfo(name))
    with pytest.raises(UserError, match="has the invalid name") as caught:
        read_all(tmp_path / "a.tar")
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()


def test_zip_names_with_null(tmp_path: Path) -> None:
    """zipfile cuts them there; so nothing after it is ever looked at."""
    written = zip_of(tmp_path / "a.zip", b"x", "a.pngXevil")
    (tmp_path / "a.zip").write_bytes(written.replace(b"a.pngX", b"a.png\0"))
    assert [str(member.path) for member in archive_members(tmp_path / "a.zip")] == ["a.png"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_a_name_that_comes_twice(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    names = ["train/cat/1.png", "train/cat/./1.png"]
    if kind == "tar":
        path.write_bytes(b"".join(header(name) for name in names) + bytes(1024))
    else:
        with zipfile.ZipFile(path, "w") as file:
            for name in names:
                file.writestr(name, b"x")
    with pytest.raises(UserError, match=r"holds train/cat/1\.png twice: remove one of them"):
        list_images(path)


def test_sizes_no_file_has(tmp_path: Path) -> None:
    for size in (b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0"):
        start = bytearray(header("a.png"))
        start[124:136] = size
        start[148:156] = b"%06o\0 " % sum(start[:148] + b" " * 8 + start[156:])
        (tmp_path / "a.tar").write_bytes(bytes(start) + bytes(1024))
        refused(tmp_path / "a.tar", "a.png unpacks to -?[0-9,]+ bytes: refused")
