"""CIFAR10 on a small release of the same layout, served on loopback."""

import dataclasses
import io
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cifar10 import checksum, tar_gz
from support.damage import damaged
from support.processes import wait_until
from support.thorough import examples
from torchvision.datasets import CIFAR10 as TORCHVISION

from litlab.data.cifar10 import CIFAR10, CLASS_NAMES, OFFICIAL, parse_binary, parse_pickle
from litlab.errors import UserError

Make = Callable[..., CIFAR10]
PIXELS = np.random.default_rng(0).integers(0, 256, (4, 3072), dtype=np.uint8)
BINARY = "cifar-10-binary.tar.gz"


def assert_is_the_small_release(module: CIFAR10, small_cifar: Any) -> None:
    module.prepare_data()
    module.setup()
    for split, files in (("train", slice(2)), ("test", slice(2, 3))):
        images, labels = (getattr(module.arrays, f"{split}_{name}").numpy() for name in ("images", "labels"))
        np.testing.assert_array_equal(images, small_cifar.images[files].reshape(-1, 3, 32, 32))
        np.testing.assert_array_equal(labels, small_cifar.labels[files].ravel())
    assert (module.info.name, module.info.class_names) == ("CIFAR-10", CLASS_NAMES)


def test_downloads_once_and_decodes_once(
    cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path, capfd: Any, caplog: Any
) -> None:
    server.content = small_cifar.binary
    with caplog.at_level(logging.INFO):
        assert_is_the_small_release(cifar_module(url=server.url), small_cifar)
    line = f"Downloading {BINARY} ({len(small_cifar.binary) / 1e6:.0f} MB) from {server.url} to {tmp_path}/root"
    assert [record.getMessage() for record in caplog.records] == [line]
    assert capfd.readouterr() == (f"{line}\n", "")
    assert {path.name for path in (tmp_path / "root").iterdir()} == {BINARY}
    assert_is_the_small_release(cifar_module(url=server.url), small_cifar)
    assert_is_the_small_release(cifar_module(url=server.url, cache=str(tmp_path / "other")), small_cifar)
    assert len(server.requests) == 1


def test_a_terminal_shows_the_progress(
    cifar_module: Make, small_cifar: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = small_cifar.binary
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    cifar_module(url=server.url).prepare_data()
    assert "100%" in terminal.getvalue()


def test_one_request_of_two_processes(cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path) -> None:
    server.content = small_cifar.binary
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    modules = [cifar_module(url=server.url, cache=str(tmp_path / name)) for name in ("one", "two")]

    def prepare(module: CIFAR10) -> None:
        barrier.wait()
        module.prepare_data()

    processes = [context.Process(target=prepare, args=(module,)) for module in modules]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(server.requests) == 1
    for module in modules:
        assert_is_the_small_release(module, small_cifar)


def refusal(module: CIFAR10, tmp_path: Path) -> str:
    """Return the message of the error; no file may be left behind."""
    with pytest.raises(UserError) as refused:
        module.prepare_data()
    assert list(tmp_path.glob("*/*")) == []
    return str(refused.value)


def test_content_that_is_not_the_archive(cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path) -> None:
    server.content, server.declared = small_cifar.binary[:-100], len(small_cifar.binary)
    message = refusal(cifar_module(url=server.url), tmp_path)
    assert f"The file from {server.url} is not {BINARY}" in message
    assert f"it has {len(server.content):,} bytes, expected {len(small_cifar.binary):,}" in message
    server.content = small_cifar.binary[:-1] + bytes([small_cifar.binary[-1] ^ 1])
    message = refusal(cifar_module(url=server.url), tmp_path)
    assert "its SHA-256 is " in message
    assert f"expected {small_cifar.release.binary.sha256}" in message


def test_urls_that_can_not_be_read(cifar_module: Make, server: Any, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        for url, reason in (
            (server.url, "HTTP Error 404"),
            (f"http://127.0.0.1:{unused.getsockname()[1]}/x", "<urlopen error [Errno 111] Connection refused>"),
            ("nonsense", "unknown url type"),
        ):
            message, root = refusal(cifar_module(url=url), tmp_path), tmp_path / "root"
            assert f"CIFAR-10 isn't in {root} and can't be downloaded from {url}: {reason}" in message
            for advice in (f"Put {BINARY} at {root / BINARY}", "data=image_folder data.root=", "data=shapes"):
                assert advice in message


def test_interrupted_download(cifar_module: Make, server: Any, tmp_path: Path) -> None:
    """Send Ctrl-C while bytes arrive."""
    server.content, server.declared, server.release = b"x" * 3 * 10**5, 10**7, threading.Event()

    def prepare() -> None:
        try:
            cifar_module(url=server.url).prepare_data()
        except KeyboardInterrupt:
            sys.exit(130)

    process = multiprocessing.get_context("fork").Process(target=prepare)
    process.start()
    unfinished = tmp_path / "root" / f".{BINARY}.part"
    wait_until(lambda: unfinished.exists() and unfinished.stat().st_size, 30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    server.release.set()
    assert process.exitcode == 130
    assert list(tmp_path.glob("*/*")) == []


def put(tmp_path: Path, files: dict[str, bytes]) -> Path:
    root = tmp_path / "root"
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def test_python_archive_and_folder(cifar_module: Make, small_cifar: Any, tmp_path: Path) -> None:
    root = put(tmp_path, {"cifar-10-python.tar.gz": small_cifar.python})
    module = cifar_module()
    assert_is_the_small_release(module, small_cifar)
    (root / "cifar-10-python.tar.gz").unlink()
    put(tmp_path, small_cifar.pickles)
    other = cifar_module(cache=str(tmp_path / "other"))
    assert_is_the_small_release(other, small_cifar)
    assert other.info.fingerprint == module.info.fingerprint


def test_root_that_can_not_be_written(cifar_module: Make, small_cifar: Any, tmp_path: Path) -> None:
    root = put(tmp_path, {BINARY: small_cifar.binary})
    root.chmod(0o555)
    assert_is_the_small_release(cifar_module(), small_cifar)
    assert [path.name for path in root.iterdir()] == [BINARY]  # also where tests run as root
    root.chmod(0o755)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"CIFAR-10 isn't in .*/file/root and can't be downloaded .*Not a directory"):
        cifar_module(root=str(tmp_path / "file" / "root"), cache=str(tmp_path / "other")).prepare_data()


@pytest.mark.parametrize("name", [BINARY, "cifar-10-python.tar.gz"])
def test_a_damaged_archive_is_named_and_kept(cifar_module: Make, small_cifar: Any, tmp_path: Path, name: str) -> None:
    good = small_cifar.binary if name == BINARY else small_cifar.python
    for bad, problem in ((good[:-1], f"bytes, expected {len(good):,}"), (good[:-1] + b"\x07", "its SHA-256 is ")):
        root = put(tmp_path, {name: bad})
        with pytest.raises(UserError, match=f"{name} is damaged or another file: .*{problem}.*Delete it"):
            cifar_module().prepare_data()
        assert (root / name).read_bytes() == bad


def test_a_damaged_folder_is_named_and_kept(cifar_module: Make, small_cifar: Any, tmp_path: Path) -> None:
    root = put(tmp_path, {**small_cifar.pickles, "cifar-10-batches-py/data_batch_2": b"other"})
    with pytest.raises(UserError, match=r"cifar-10-batches-py/data_batch_2 is damaged: its MD5 is .*, expected "):
        cifar_module().prepare_data()
    (root / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(UserError, match="cifar-10-batches-py/data_batch_2 is missing"):
        cifar_module().prepare_data()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil.bin": b"x"}, "the path of the member '../evil.bin' leaves the archive: refused"),
        ({"cifar-10-batches-bin/data_batch_1.bin": b"\0" * 3073}, "a file has 1 images, expected 50"),
        ({"cifar-10-batches-bin/test_batch.bin": b"\0" * 3073 * 50}, "lacks cifar-10-batches-bin/data_batch_1.bin"),
        ({"cifar-10-batches-bin/test_batch.bin": b"\0"}, "test_batch.bin.* has 1 bytes, expected a multiple of 3,073"),
        ({"cifar-10-batches-bin/test_batch.bin": b"\x0a" * 3073}, "expected a label from 0 to 9 for each image"),
    ],
)
def test_even_a_verified_archive_is_not_trusted(
    cifar_module: Make, small_cifar: Any, tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    content = tar_gz(members)
    module = cifar_module()
    type(module).release = dataclasses.replace(small_cifar.release, binary=checksum(BINARY, content))
    put(tmp_path, {BINARY: content})
    with pytest.raises(UserError, match=message):
        module.prepare_data()
    assert list((tmp_path / "cache").iterdir()) == []


def test_official_checksums_are_torchvisions() -> None:
    assert [list(file) for file in OFFICIAL.python_md5] == TORCHVISION.train_list + TORCHVISION.test_list
    assert OFFICIAL.python.name == TORCHVISION.filename


def test_pickles_of_python_3() -> None:
    content = {b"data": PIXELS, b"labels": [3, 0, 9, 1]}
    images, labels = parse_pickle(pickle.dumps(content, protocol=4), "x")
    np.testing.assert_array_equal(images.reshape(4, 3072), PIXELS)
    assert labels.tolist() == [3, 0, 9, 1]
    # In protocol 2, bytes go through _codecs.encode, which the official files don't need.
    with pytest.raises(UserError, match=r"refers to _codecs.encode"):
        parse_pickle(pickle.dumps(content, protocol=2), "x")


class _Hostile:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call, arguments

    def __reduce__(self) -> Any:
        return self.call


def test_hostile_pickles_are_refused_and_not_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for hostile, name in (
        (_Hostile(os.system, f"touch {mark}"), "posix.system"),
        (_Hostile(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (_Hostile(np.load, str(mark)), "numpy.load"),
        (_Hostile(getattr, np.ndarray, "tofile"), "builtins.getattr"),
    ):
        for content in ({b"data": hostile}, {b"data": PIXELS, b"labels": [0, hostile, 1, 2]}):
            with pytest.raises(UserError, match=f"x: the pickle refers to {name}, .*: refused"):
                parse_pickle(pickle.dumps(content, protocol=4), "x")
    assert not mark.exists()


def test_other_pickles() -> None:
    other_objects = (
        [1, 2],
        {b"data": PIXELS},
        {b"data": b"bytes", b"labels": [0]},
        {b"data": PIXELS.astype(np.float32), b"labels": [0, 1, 2, 3]},
        {b"data": PIXELS[:, :5], b"labels": [0, 1, 2, 3]},
        {b"data": PIXELS, b"labels": ["cat"] * 4},
    )
    for content in (b"", b"no pickle", *map(pickle.dumps, other_objects)):
        with pytest.raises(UserError, match=r"x is not a file of CIFAR-10 \(.*\): download it again"):
            parse_pickle(content, "x")
    for labels in ([0, 1, 2], [0, 1, 2, 10], [0, 1, 2, -1]):
        with pytest.raises(UserError, match="x: expected a label from 0 to 9 for each image"):
            parse_pickle(pickle.dumps({b"data": PIXELS, b"labels": labels}), "x")


PICKLE = pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1, 2]}, protocol=4)


@examples(60)
@given(damaged(PICKLE, b"\x80\x04cos\nsystem\nV" * 200) | st.binary(max_size=60))
def test_damaged_files(content: bytes) -> None:
    for parse in (parse_pickle, parse_binary):
        try:
            pixels, labels = parse(content, "here")
        except UserError:
            continue
        assert len(pixels) == len(labels)
