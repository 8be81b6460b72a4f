"""Images that are decoded when they are needed are those in memory, batch by batch, bit for bit."""

import ctypes
import os
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from lightning.pytorch.utilities.combined_loader import _shutdown_workers_and_reset_iterator
from PIL import Image
from support.exact_resume import differences
from support.images import write_folder
from support.loaders import training_loader
from support.processes import is_alive, wait_until

from litlab.data.image_folder import ImageFolder
from litlab.data.loader import Batch, BatchLoader
from litlab.errors import UserError

Make = Callable[..., ImageFolder]
MIXED = {"mixup": 0.2, "cutmix": 1.0}


@pytest.fixture
def make(folder_module: Make, tmp_path: Path) -> Make:
    """Return a factory of data modules of one folder of images, set up."""
    write_folder(tmp_path / "images")

    def made(**changes: Any) -> ImageFolder:
        module = folder_module(**{"val_size": 6, "batch_size": 8, **changes})
        module.prepare_data()
        module.setup()
        return module

    return made


def assert_equal(streamed: Iterator[Batch], expected: Iterator[Batch]) -> int:
    """Compare batches; return their number."""
    batches = list(streamed)
    assert differences(batches, list(expected)) == []
    return len(batches)


@pytest.mark.integrations
@pytest.mark.parametrize("num_workers", [0, 2])
def test_stream_equals_memory_for_any_ranks_and_from_any_position(make: Make, num_workers: int) -> None:
    memory, stream = make(**MIXED), make(**MIXED, storage="stream", num_workers=num_workers)
    assert stream.info == memory.info
    for world_size in (1, 2, 4):
        for rank in range(world_size):
            left, right = (training_loader(module, 1, rank, world_size) for module in (stream, memory))
            assert assert_equal(iter(left), iter(right)) == 5
            if rank == world_size - 1:
                for loader in (left, right):
                    loader.seek(3)
                    loader.sampler.set_epoch(2)
                assert assert_equal(iter(left), iter(right)) == 2
                next(iter(left))  # left early: what was read ahead is not in the way of the next epoch
                assert assert_equal(iter(left), iter(right)) == 5
            _shutdown_workers_and_reset_iterator(left)
    for name in ("val_dataloader", "test_dataloader"):
        assert assert_equal(iter(getattr(stream, name)()), iter(getattr(memory, name)())) == {"v": 1, "t": 2}[name[0]]


def test_statistics_are_cached_until_a_file_changes(make: Make, tmp_path: Path) -> None:
    before = make(storage="stream").info
    (kept,) = (tmp_path / "cache").iterdir()
    with np.load(kept) as values:
        np.savez(kept, **dict(values) | {"fingerprint": np.array("0" * 64)})
    assert make(storage="stream").info.fingerprint == "0" * 64, "it is not read again"
    kept.write_bytes(kept.read_bytes()[:50])
    assert make(storage="stream").info == before
    Image.new("RGB", (20, 20), (200, 10, 30)).save(tmp_path / "images" / "train" / "cat" / "00.jpg")
    after = make(storage="stream").info
    assert after == make().info
    assert after.fingerprint != before.fingerprint


def test_a_zip_archive_streams_and_a_tar_archive_says_what_to_do(make: Make, tmp_path: Path) -> None:
    folder = make()
    for form in ("zip", "tar"):
        shutil.make_archive(str(tmp_path / "packed"), form, tmp_path / "images")
    packed = make(root=str(tmp_path / "packed.zip"), storage="stream", num_workers=2)
    assert packed.info.fingerprint == folder.info.fingerprint
    with pytest.raises(UserError, match=r"streamed from their files.*data\.storage=memory"):
        _ = packed.arrays
    assert_equal(iter(training_loader(packed, 1)), iter(training_loader(folder, 1)))
    with pytest.raises(UserError, match=r"packed\.tar can only be read from front to back.*unpack it"):
        make(root=str(tmp_path / "packed.tar"), storage="stream")
    module = make(root=str(tmp_path / "packed.zip"), storage="stream")
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as emptied:
        emptied.writestr("train/cat/00.jpg", b"")
    with pytest.raises(UserError, match=r"packed\.zip no longer contains train"):
        list(training_loader(module, 1))


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(("content", "message"), [(b"no image", "can't be read as a JPEG"), (None, "can't be read")])
def test_a_file_that_is_damaged_in_mid_epoch(
    make: Make, tmp_path: Path, num_workers: int, content: bytes | None, message: str
) -> None:
    module = make(storage="stream", num_workers=num_workers)
    loader = training_loader(module, 1)
    assert len(list(loader)) == 5
    path = tmp_path / "images" / "train" / "dog" / "03.png"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(UserError, match=message) as refused:
        list(loader)
    assert str(path) in str(refused.value)
    assert "Traceback" not in str(refused.value)


def workers(loader: BatchLoader) -> list[Any]:
    """Return the worker processes of a loader."""
    return list(loader._iterator._workers)  # type: ignore[attr-defined]


def in_another_process(work: Callable[[], object]) -> None:
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    os.waitpid(child, 0)


def test_workers_survive_signals_to_all_processes_of_a_run(make: Make) -> None:
    """Check that workers end at a SIGTERM of their parent only, which needs batches until it has saved."""
    loader, expected = training_loader(make(storage="stream", num_workers=2), 1), training_loader(make(), 1)
    batches = iter(loader)
    seen = [next(batches)]

    def send() -> None:
        for worker in workers(loader):
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
                os.kill(worker.pid, signum)

    in_another_process(send)
    seen += batches
    assert assert_equal(iter(seen), iter(expected)) == 5
    first, second = workers(loader)
    first.terminate()
    first.join(5)
    assert (first.exitcode, second.exitcode) == (0, None)
    _shutdown_workers_and_reset_iterator(loader)


def test_workers_end_with_the_training_and_with_its_process(make: Make, tmp_path: Path) -> None:
    module = make(storage="stream", num_workers=2)
    loader = training_loader(module, 1)
    list(loader)
    ended = workers(loader)
    _shutdown_workers_and_reset_iterator(loader)  # what Lightning does
    assert [worker.exitcode for worker in ended] == [0, 0]

    def die_while_reading() -> None:
        loader = training_loader(module, 1)
        next(iter(loader))
        (tmp_path / "pids").write_text(" ".join(str(worker.pid) for worker in workers(loader)))
        os.kill(os.getpid(), signal.SIGKILL)

    in_another_process(die_while_reading)
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    wait_until(lambda: not any(is_alive(int(pid)) for pid in pids), 2)


def mount_shared_memory(size: bytes) -> bool:
    """Give this process a shared memory of its own, of a size such as b"1m", where it may mount one."""
    libc, new_mounts, private = ctypes.CDLL(None), 0x20000, (1 << 14) | (1 << 18)  # <linux/sched.h>, <linux/fs.h>
    return (
        libc.unshare(new_mounts) == 0
        and libc.mount(b"none", b"/", None, private, None) == 0
        and libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=" + size) == 0
    )


@pytest.mark.parametrize("size", [b"1m", b"4k"])
def test_little_shared_memory_is_an_error_with_what_to_do(make: Make, tmp_path: Path, size: bytes) -> None:
    """Docker gives 64 MB, which is less than the batches of a few workers."""
    module = make(storage="stream", num_workers=2, image_size=200)

    def read_all() -> None:
        signal.alarm(60)  # a worker that sends nothing would be waited for without end
        message = "no mount"
        if mount_shared_memory(size):
            try:
                list(training_loader(module, 1))
            except UserError as error:
                message = f"{error}\n{psutil.Process().children()}"
        (tmp_path / "message").write_text(message)

    in_another_process(read_all)
    text = (tmp_path / "message").read_text()
    if text == "no mount":
        pytest.skip("needs the right to mount a file system")
    message, children = text.splitlines()
    assert "/dev/shm (" in message
    assert "--shm-size" in message
    assert message.endswith("or set data.num_workers=0, which needs none")
    assert children == "[]", "a worker is left"


def test_workers_that_can_not_be_started_for_another_reason(make: Make, tmp_path: Path) -> None:
    module = make(storage="stream", num_workers=2)

    def start() -> None:
        loader = training_loader(module, 1)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, before[1]))  # noqa: PTH208
        with pytest.raises(UserError) as refused:
            list(loader)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        (tmp_path / "message").write_text(str(refused.value))

    in_another_process(start)
    assert (tmp_path / "message").read_text() == (
        "data.num_workers: the workers that read images can't be started: Too many open files; "
        "set a smaller number, or 0"
    )


def test_workers_need_linux(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(UserError, match=r"^data.num_workers=2: .* need Linux; expected data.num_workers=0$"):
        training_loader(make(storage="stream", num_workers=2), 1)
