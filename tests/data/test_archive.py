"""Archives, intact, damaged and hostile: nothing is written, little memory is taken, and all errors are UserErrors."""

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.damage import damaged, small_images
from support.images import LAYOUT
from support.thorough import examples

from litlab.data import archive
from litlab.data.archive import archive_members, is_archive
from litlab.data.image_decoder import DecodingReport, decode_images
from litlab.data.image_listing import list_images
from litlab.errors import UserError

pytestmark = pytest.mark.usefixtures("limited_memory")
FORMATS = ("tar", "tar.gz", "tar.xz", "tar.bz2", "zip")
COMPRESS = {"gz": gzip.compress, "xz": lzma.compress, "bz2": bz2.compress}
CONTENT = {"top/a.txt": b"first", "top/b/c.bin": bytes(range(256)) * 9}


def header(name: str, size: int = 0, entry_type: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size, entry.type, entry.linkname = size, entry_type, link
    return entry.tobuf(tarfile.GNU_FORMAT)


def with_field(entry: bytes, start: int, field: bytes) -> bytes:
    """Replace a field of a header, with the right checksum."""
    changed = bytearray(entry)
    changed[start : start + len(field)] = field
    changed[148:156] = b"%06o\0 " % sum(changed[:148] + b" " * 8 + changed[156:])
    return bytes(changed)


def pack(path: Path, contents: dict[str, bytes]) -> None:
    """Write an archive of the format that its name says, with an entry for the folder `top`."""
    if path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            file.mkdir("top")
            for name, content in contents.items():
                file.writestr(name, content)
        return
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo("top")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in contents.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    path.write_bytes(COMPRESS.get(path.suffix.removeprefix(".").replace("tgz", "gz"), bytes)(packed.getvalue()))


def zip_of(
    path: Path, content: bytes, name: str | zipfile.ZipInfo = "a.png", compression: int = zipfile.ZIP_DEFLATED
) -> bytearray:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr(name, content)
    return bytearray(path.read_bytes())


def set_zip_size(path: Path, written: bytearray, size: int) -> None:
    """Declare another size of the first member, in its header and in the index."""
    for start in (22, written.index(b"PK\x01\x02") + 24):
        written[start : start + 4] = struct.pack("<I", size)
    path.write_bytes(written)


def read_all(path: Path) -> dict[str, bytes]:
    return {str(member.path): member.read() for member in archive_members(path)}


def assert_refused(path: Path, message: str) -> str:
    """Read in a limited address space, where a bomb raises MemoryError before a UserError."""
    before = sorted(path.parent.rglob("*"))
    with pytest.raises(UserError, match=message) as refused:
        read_all(path)
    assert sorted(path.parent.rglob("*")) == before
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", [*(f"data.{suffix}" for suffix in FORMATS), "data.tgz", "data.ZIP"])
def test_every_format_is_read(tmp_path: Path, name: str) -> None:
    pack(tmp_path / name, CONTENT)
    assert is_archive(tmp_path / name)
    assert read_all(tmp_path / name) == CONTENT
    assert not is_archive(tmp_path / "data.txt")


@pytest.mark.parametrize("name", ["../evil", "top/../../evil", "/etc/evil", "..\\evil", "C:\\evil"])
@pytest.mark.parametrize("suffix", ["tar", "zip"])
def test_paths_that_leave_the_archive(tmp_path: Path, name: str, suffix: str) -> None:
    pack(tmp_path / f"data.{suffix}", {name: b"x"})
    assert_refused(tmp_path / f"data.{suffix}", "evil' leaves the archive: refused")


def sparse_member() -> bytes:
    records = b"22 GNU.sparse.major=1\n" + b"22 GNU.sparse.minor=0\n" + b"31 GNU.sparse.realsize=9999999\n"
    content = b"1\n0\n1\n".ljust(512, b"\0") + b"x".ljust(512, b"\0")
    start = header("././@PaxHeader", len(records), tarfile.XHDTYPE) + records.ljust(512, b"\0")
    return start + header("odd", 513) + content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("odd", 0, tarfile.SYMTYPE, "/etc/passwd"), "odd is a link"),
        (header("odd", 0, tarfile.LNKTYPE, "/etc/passwd"), "odd is a link"),
        (header("odd", 0, tarfile.CHRTYPE), "odd is a device"),
        (header("odd", 0, tarfile.FIFOTYPE), "odd is a device"),
        (sparse_member(), "odd is sparse: refused"),
        (header("huge", 2**30), r"huge unpacks to .* bytes.*refused"),
        *(
            (with_field(header("a.png"), 124, size), "a.png unpacks to -?[0-9,]+ bytes: refused")
            for size in (b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0")
        ),
    ],
    ids=range(9),
)
def test_tar_members_that_are_no_plain_files_of_a_possible_size(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.tar").write_bytes(content + bytes(1024))
    assert_refused(tmp_path / "a.tar", message)


def test_links_in_zip(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("odd")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    zip_of(tmp_path / "data.zip", b"/etc/passwd", entry)
    assert_refused(tmp_path / "data.zip", "odd is a link: refused")


def test_limits_on_members_and_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.tar"
    path.write_bytes(b"".join(header(name, 5) + b"12345".ljust(512, b"\0") for name in "abc") + bytes(1024))
    monkeypatch.setattr(archive, "_MAX_TOTAL_BYTES", 14)
    assert_refused(path, r"unpacks to more than 14 bytes \(at c\)")
    monkeypatch.setattr(archive, "_MAX_MEMBERS", 2)
    assert_refused(path, "more than 2 members")
    path.write_bytes(header("a/", 0, tarfile.DIRTYPE) * 3 + bytes(1024))
    assert_refused(path, "more than 2 members")


@pytest.mark.parametrize("damage", ["truncated", "replaced"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged(tmp_path: Path, suffix: str, damage: str) -> None:
    path = tmp_path / f"data.{suffix}"
    pack(path, {"noise": os.urandom(200_000)})
    path.write_bytes(path.read_bytes()[:100_000] if damage == "truncated" else b"<html>not found</html>" * 50)
    assert_refused(path, f"{suffix} is damaged or not of the type its name says")


def endless_sparse_map() -> list[bytes]:
    start = with_field(header("sparse", 512, tarfile.GNUTYPE_SPARSE), 482, b"\1" + b"0" * 11 + b"\0")  # extended
    return [start, *[(b"00000000000\0" * 42)[:504] + b"\1" + bytes(7)] * 20_000]


ENDLESS_HEADERS = [header("././@PaxHeader", 21, tarfile.XGLTYPE), b"20 comment=xxxxxxxxx\n".ljust(512, b"\0")] * 5000


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        *(
            # tarfile reads such a header into memory as a whole
            ([header("././@x", 2**31, entry_type), bytes(2**24)], r"has headers of more than 1,048,576 bytes: refused")
            for entry_type in (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
        ),
        (ENDLESS_HEADERS, "has headers of more than|recursion"),
        (endless_sparse_map(), "has headers of more than 1,048,576 bytes: refused"),
    ],
    ids=["xhd", "xgl", "longname", "longlink", "endless headers", "endless sparse map"],
)
def test_headers_that_are_bombs(tmp_path: Path, chunks: list[bytes], message: str) -> None:
    with gzip.open(tmp_path / "bomb.tar.gz", "wb", compresslevel=1) as file:
        for chunk in chunks:
            file.write(chunk)
    assert_refused(tmp_path / "bomb.tar.gz", message)


@pytest.mark.parametrize("suffix", ["tar.gz", "tar.bz2", "zip"])
def test_a_small_file_that_unpacks_to_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(archive, "_MIN_RATIO_BYTES", 2**20)
    pack(tmp_path / f"a.{suffix}", {f"{number}.png": bytes(2**18) for number in range(9)})
    assert_refused(tmp_path / f"a.{suffix}", r"unpacks to more than 1,048,576 bytes \(at 4.png\): refused")


def test_xz_that_declares_gigabytes_of_memory(tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 2**20}]
    packed = bytearray(lzma.compress(header("a.png", 3) + b"abc".ljust(512, b"\0"), filters=filters))
    assert packed[16] == 16  # the size of the dictionary, in the header of the first block
    packed[16] = 40  # 4 GB
    packed[20:24] = zlib.crc32(packed[12:20]).to_bytes(4, "little")
    (tmp_path / "a.tar.xz").write_bytes(packed)
    assert_refused(tmp_path / "a.tar.xz", "Memory usage limit exceeded")


def test_xz_in_several_streams(tmp_path: Path) -> None:
    content = header("a.png", 700) + b"abc".ljust(1024, b"\0") + bytes(1024)
    parts = [lzma.compress(content[start : start + 300]) for start in range(0, len(content), 300)]
    (tmp_path / "a.tar.xz").write_bytes(bytes(4).join(parts) + bytes(8))
    assert read_all(tmp_path / "a.tar.xz") == {"a.png": b"abc".ljust(700, b"\0")}


def test_zip_that_declares_a_wrong_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed, packed.open("a.png", "w") as file:
        for _ in range(800):
            file.write(bytes(2**20))
    set_zip_size(path, bytearray(path.read_bytes()), 100)
    assert_refused(path, r"is damaged or not of the type its name says \(Bad CRC-32 for file 'a.png'\)")
    for size, message in ((2000, "damaged"), (2**32 - 2, "a.png unpacks to 4,294,967,294 bytes: refused")):
        set_zip_size(path, zip_of(path, bytes(1000)), size)
        assert_refused(path, message)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_zip_methods_without_a_limit(tmp_path: Path, method: int) -> None:
    zip_of(tmp_path / "a.zip", bytes(1000), compression=method)
    assert_refused(tmp_path / "a.zip", f"a.png is compressed by method {method}: pack it with deflate")


def test_encrypted_zip(tmp_path: Path) -> None:
    written = zip_of(tmp_path / "a.zip", b"abc")
    for start in (6, written.index(b"PK\x01\x02") + 8):
        written[start] |= 1
    (tmp_path / "a.zip").write_bytes(written)
    assert_refused(tmp_path / "a.zip", "encrypted")


def test_zip_with_an_index_of_gigabytes(tmp_path: Path) -> None:
    written = zip_of(tmp_path / "a.zip", b"abc")
    with (tmp_path / "a.zip").open("wb") as file:
        file.write(written[: written.index(b"PK\x01\x02")])
        file.truncate(2**29)
        file.seek(2**29)
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, 2**29 - 100, 100, 0))
    assert_refused(tmp_path / "a.zip", "an index of 536,870,812 bytes")


@pytest.mark.parametrize("name", ["a\nb.png", "a\x1b[31m.png", "a\udcff.png", "x" * 5000, "a\x85.png"])
def test_invalid_names(tmp_path: Path, name: str) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        file.addfile(tarfile.TarInfo(name))
    message = assert_refused(tmp_path / "a.tar", "has the invalid name .*: refused")
    assert message.isascii()
    assert message.isprintable()


def test_zip_names_with_null(tmp_path: Path) -> None:
    """Python's zipfile truncates them there, so nothing after it is ever used."""
    written = zip_of(tmp_path / "a.zip", b"x", "a.pngXevil")
    (tmp_path / "a.zip").write_bytes(written.replace(b"a.pngX", b"a.png\0"))
    assert list(read_all(tmp_path / "a.zip")) == ["a.png"]


def use(path: Path) -> int:
    """Do all that litlab does with an archive; return the number of images, 0 if it is refused."""
    num_images = 0
    try:
        images = list_images(path, LAYOUT)
        for member in archive_members(path):
            assert len(member.read()) == member.num_bytes
        report = DecodingReport()
        decode_images(path, {image.path: np.empty((3, 8, 8), np.uint8) for image in images}, 16, report)
        num_images = len(images) - len(report.unreadable)
    except UserError:
        pass
    assert [entry.name for entry in path.parent.iterdir()] == [path.name], "nothing is written"
    return num_images


@pytest.mark.parametrize("suffix", FORMATS)
def test_damaged_archives_of_images(suffix: str, tmp_path: Path) -> None:
    # The first name is so long that it has an extended header.
    names = [f"train/cat/{'long' * 40}.png", "train/dog/b.jpg", "test/cat/c.webp"]
    whole = {}
    (tmp_path / "only").mkdir()
    for archive_format in {"tar", "zip", suffix}:
        packed = tmp_path / f"a.{archive_format}"
        pack(packed, dict(zip(names, small_images().values(), strict=False)))
        whole[archive_format] = packed.read_bytes()
    path = tmp_path / "only" / f"a.{suffix}"
    path.write_bytes(whole[suffix])
    assert list(read_all(path).values()) == list(small_images().values())[:3]
    assert use(path) == 3
    starts = st.sampled_from([b"", b"\x1f\x8b\x08\0", b"BZh9", b"\xfd7zXZ\0", b"PK\x03\x04", b"PK\x05\x06" + bytes(18)])
    random_content = st.builds(bytes.__add__, starts, st.binary(max_size=600))
    compress = COMPRESS.get(suffix.removeprefix("tar."))
    # Damage before the compression is met by the reader of the tar, not by a checksum.
    contents = [damaged(whole[suffix], whole["tar"]), random_content]
    if compress is not None:
        contents.append(damaged(whole["tar"], whole["zip"]).map(compress))

    @examples(30 * len(contents))
    @given(st.one_of(contents))
    def check(content: bytes) -> None:
        path.write_bytes(content)
        use(path)

    check()
