"""The official loader, on a small release of the same layout, served on loopback."""

import dataclasses
import hashlib
import io
import logging
import multiprocessing
import os
import signal
import socket
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litlab.data.cifar10 import CIFAR10, CLASS_NAMES
from litlab.data.download import Checksum
from litlab.errors import UserError

Make = Callable[..., CIFAR10]


def assert_is_the_small_release(module: CIFAR10, small_cifar: Any) -> None:
    module.prepare_data()
    module.setup()
    np.testing.assert_array_equal(module.arrays.train_images.numpy(), small_cifar.images[:2].reshape(-1, 3, 32, 32))
    np.testing.assert_array_equal(module.arrays.train_labels.numpy(), small_cifar.labels[:2].ravel())
    np.testing.assert_array_equal(module.arrays.test_images.numpy(), small_cifar.images[2])
    np.testing.assert_array_equal(module.arrays.test_labels.numpy(), small_cifar.labels[2])
    assert (module.info.name, module.info.class_names) == ("CIFAR-10", CLASS_NAMES)


def test_fetches_once_and_decodes_once(
    cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path, capfd: Any, caplog: Any
) -> None:
    server.content = small_cifar.binary
    with caplog.at_level(logging.INFO):
        assert_is_the_small_release(cifar_module(url=server.url), small_cifar)
    line = f"Downloading cifar-10-binary.tar.gz ({len(small_cifar.binary) / 1e6:.0f} MB) from {server.url} to {tmp_path}/root"
    assert [record.getMessage() for record in caplog.records] == [line]
    assert capfd.readouterr() == (f"{line}\n", "")
    names = {path.name for path in (tmp_path / "root").iterdir()}
    assert names == {"cifar-10-binary.tar.gz", ".cifar-10-binary.tar.gz.lock"}
    assert_is_the_small_release(cifar_module(url=server.url), small_cifar)
    assert_is_the_small_release(cifar_module(url=server.url, cache=str(tmp_path / "other")), small_cifar)
    assert server.num_requests == 1


def test_a_terminal_sees_how_far_the_transfer_is(
    cifar_module: Make, small_cifar: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.content = small_cifar.binary
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    cifar_module(url=server.url).prepare_data()
    assert "100%" in terminal.getvalue()


def _prepare(module: CIFAR10, barrier: Any) -> None:
    barrier.wait()
    module.prepare_data()


def test_one_request_when_two_processes_prepare_at_once(
    cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path
) -> None:
    server.content = small_cifar.binary
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    modules = [cifar_module(url=server.url, cache=str(tmp_path / name)) for name in ("one", "two")]
    processes = [context.Process(target=_prepare, args=(module, barrier)) for module in modules]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert server.num_requests == 1
    for module in modules:
        assert_is_the_small_release(module, small_cifar)


def refused(module: CIFAR10, tmp_path: Path) -> str:
    """The message; makes sure that nothing but locks stays behind."""
    with pytest.raises(UserError) as caught:
        module.prepare_data()
    for name in ("root", "cache"):
        assert all(path.name.endswith(".lock") for path in (tmp_path / name).iterdir())
    return str(caught.value)


def test_truncated_download(cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path) -> None:
    server.content, server.declared = small_cifar.binary[:-100], len(small_cifar.binary)
    message = refused(cifar_module(url=server.url), tmp_path)
    assert f"The file from {server.url} is not cifar-10-binary.tar.gz" in message
    assert f"it has {len(server.content):,} bytes, expected {len(small_cifar.binary):,}" in message


def test_download_with_a_wrong_checksum(cifar_module: Make, small_cifar: Any, server: Any, tmp_path: Path) -> None:
    server.content = small_cifar.binary[:-1] + bytes([small_cifar.binary[-1] ^ 1])
    message = refused(cifar_module(url=server.url), tmp_path)
    assert "its SHA-256 is " in message
    assert f"expected {small_cifar.release.binary.sha256}" in message


def test_nothing_at_the_url(cifar_module: Make, server: Any, tmp_path: Path) -> None:
    message = refused(cifar_module(url=server.url), tmp_path)
    assert f"can't be downloaded from {server.url}: HTTP Error 404" in message
    assert_names_ways_on(message, tmp_path)


def test_unreachable(cifar_module: Make, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        message = refused(cifar_module(url=url), tmp_path)
    assert f"CIFAR-10 isn't in {tmp_path / 'root'} and can't be downloaded from {url}: " in message
    assert "Connection refused" in message
    assert_names_ways_on(message, tmp_path)


def assert_names_ways_on(message: str, tmp_path: Path) -> None:
    assert f"Put cifar-10-binary.tar.gz at {tmp_path / 'root' / 'cifar-10-binary.tar.gz'}" in message
    assert "data=image_folder data.root=" in message
    assert "data=shapes" in message


def test_url_that_is_none(cifar_module: Make, tmp_path: Path) -> None:
    assert "can't be downloaded from nonsense: unknown url type" in refused(cifar_module(url="nonsense"), tmp_path)


def test_interrupted_download(cifar_module: Make, server: Any, tmp_path: Path) -> None:
    """Ctrl-C while bytes arrive."""
    server.content, server.declared, server.finish = b"x" * 3 * 10**5, 10**7, threading.Event()
    process = multiprocessing.get_context("fork").Process(
        target=_prepare_interrupted, args=(cifar_module(url=server.url),)
    )
    process.start()
    unfinished = tmp_path / "root" / ".cifar-10-binary.tar.gz.part"
    give_up = time.monotonic() + 30
    while not (unfinished.exists() and unfinished.stat().st_size) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(30)
    server.finish.set()
    assert process.exitcode == 130
    assert [path.name for path in (tmp_path / "root").iterdir()] == [".cifar-10-binary.tar.gz.lock"]


def _prepare_interrupted(module: CIFAR10) -> None:
    try:
        module.prepare_data()
    except KeyboardInterrupt:
        sys.exit(130)


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
    put(tmp_path, {f"cifar-10-batches-py/{name}": content for name, content in small_cifar.pickles.items()})
    other = cifar_module(cache=str(tmp_path / "other"))
    assert_is_the_small_release(other, small_cifar)
    assert other.info.fingerprint == module.info.fingerprint


def test_read_only_root(cifar_module: Make, small_cifar: Any, tmp_path: Path) -> None:
    root = put(tmp_path, {"cifar-10-binary.tar.gz": small_cifar.binary})
    root.chmod(0o555)
    assert_is_the_small_release(cifar_module(), small_cifar)
    assert [path.name for path in root.iterdir()] == ["cifar-10-binary.tar.gz"]  # also where tests run as root
    root.chmod(0o755)


def test_root_that_cannot_be_made(cifar_module: Make, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"CIFAR-10 isn't in .*/file/root and can't be downloaded .*Not a directory.*data=shapes"
    ):
        cifar_module(root=str(tmp_path / "file" / "root")).prepare_data()


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"])
def test_a_damaged_archive_is_named_and_kept(cifar_module: Make, small_cifar: Any, tmp_path: Path, name: str) -> None:
    good = small_cifar.binary if "binary" in name else small_cifar.python
    for bad, problem in ((good[:-1], f"bytes, expected {len(good):,}"), (good[:-1] + b"\x07", "its SHA-256 is ")):
        root = put(tmp_path, {name: bad})
        with pytest.raises(UserError, match=f"{name} is damaged or another file: .*{problem}.*Delete it"):
            cifar_module().prepare_data()
        assert (root / name).read_bytes() == bad


def test_a_damaged_folder_is_named_and_kept(cifar_module: Make, small_cifar: Any, tmp_path: Path) -> None:
    files = {f"cifar-10-batches-py/{name}": content for name, content in small_cifar.pickles.items()}
    root = put(tmp_path, {**files, "cifar-10-batches-py/data_batch_2": b"other"})
    with pytest.raises(UserError, match=r"cifar-10-batches-py/data_batch_2 is damaged: its MD5 is .*, expected "):
        cifar_module().prepare_data()
    (root / "cifar-10-batches-py" / "data_batch_2").unlink()
    with pytest.raises(UserError, match="cifar-10-batches-py/data_batch_2 is missing"):
        cifar_module().prepare_data()


def archive_of(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, member in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(member)
            archive.addfile(entry, io.BytesIO(member))
    return content.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../evil.bin": b"x"}, "the path of the member '../evil.bin' leaves the archive: refused"),
        ({"cifar-10-batches-bin/data_batch_1.bin": b"\0" * 3073}, "a file has 1 images, expected 50"),
        ({"cifar-10-batches-bin/test_batch.bin": b"\0" * 3073 * 50}, "lacks cifar-10-batches-bin/data_batch_1.bin"),
        ({"cifar-10-batches-bin/test_batch.bin": b"\0"}, "test_batch.bin.* has 1 bytes, expected a multiple of 3,073"),
    ],
)
def test_even_a_verified_archive_is_not_trusted(
    cifar_module: Make, small_cifar: Any, tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    content = archive_of(members)
    facts = Checksum("cifar-10-binary.tar.gz", len(content), hashlib.sha256(content).hexdigest())
    module = cifar_module()
    type(module).release = dataclasses.replace(small_cifar.release, binary=facts)
    put(tmp_path, {"cifar-10-binary.tar.gz": content})
    with pytest.raises(UserError, match=message):
        module.prepare_data()
    assert all(path.name.endswith(".lock") for path in (tmp_path / "cache").iterdir())
