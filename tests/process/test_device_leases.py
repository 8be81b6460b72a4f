"""Leases of devices: another process has them until it ends, and its jobs until they end."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from litlab.process.device_leases import DeviceLeases, hold_leases, lease_folder

_COMMAND = """
import os, sys, time
from pathlib import Path
from litlab.process.device_leases import DeviceLeases, hold_leases

leases = DeviceLeases(Path(sys.argv[1]))
assert leases.take(sys.argv[2:], 9) == (sys.argv[2:], [])
job = os.fork()
if job == 0:
    os.closerange(3, 100)  # leases of the parent
    hold_leases(leases.files(sys.argv[2:]))
    print(os.getpid(), flush=True)
time.sleep(100)
"""


@contextmanager
def command_with_job(folder: Path, *devices: str) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """Start a process that takes leases and has a job, whose process id it yields, too."""
    arguments = [sys.executable, "-c", _COMMAND, str(folder), *devices]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, start_new_session=True) as command:
        assert command.stdout is not None
        job = int(command.stdout.readline())
        try:
            yield command, job
        finally:
            for pid in (command.pid, job):
                with suppress(ProcessLookupError):
                    os.kill(pid, 9)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "leases"


def test_a_device_of_another_command_is_refused_until_its_job_has_ended(folder: Path) -> None:
    leases = DeviceLeases(folder)
    with command_with_job(folder, "gpu-0") as (command, job):
        assert leases.take(["gpu-0", "gpu-1"], 1) == (["gpu-1"], ["gpu-0"])
        assert leases.owner("gpu-0") == f"process {command.pid} on {os.uname().nodename}"
        command.kill()
        command.wait()
        assert leases.take(["gpu-0"], 1) == ([], ["gpu-0"]), "its job may still save"
        os.kill(job, 9)
        assert command.stdout is not None
        assert command.stdout.read() == ""  # the pipe is closed when the job is gone
        assert leases.take(["gpu-0"], 1) == (["gpu-0"], [])


def test_jobs_of_one_command_share_a_device(folder: Path) -> None:
    ours, others = DeviceLeases(folder), DeviceLeases(folder)
    for _ in range(2):
        assert ours.take(["gpu-0"], 1) == (["gpu-0"], [])
    ours.release(["gpu-0"])
    assert others.take(["gpu-0"], 1) == ([], ["gpu-0"])
    ours.release(["gpu-0"])
    assert others.take(["gpu-0"], 1) == (["gpu-0"], [])


def test_what_a_file_holds_and_other_files_do_not_matter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text is torn, or a terminal's escape sequence; the name of a GPU has a slash."""
    ours, others = DeviceLeases(folder), DeviceLeases(folder)
    folder.joinpath("gpu-0").write_bytes(b"process 12\xff")
    folder.joinpath("foreign").mkdir()
    assert ours.take(["gpu-0", "gpu-MIG-1/0"], 2) == (["gpu-0", "gpu-MIG-1/0"], [])
    assert others.take(["gpu-MIG-1/0"], 1) == ([], ["gpu-MIG-1/0"])
    assert others.owner("gpu-0") == f"process {os.getpid()} on {os.uname().nodename}"
    for text in (b"process 12\xff", b"process 1 on \x1b[2J", b"", b"x" * 5000):
        folder.joinpath("gpu-0").write_bytes(text)
        assert others.owner("gpu-0") == "another process"
    assert capsys.readouterr().err == ""


def test_nothing_is_written_through_a_link(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The device counts as free, since nobody can hold its lease; those of the other devices work."""
    leases = DeviceLeases(folder)
    target = tmp_path / "target"
    target.write_text("mine")
    folder.joinpath("gpu-0").symlink_to(target)
    os.mkfifo(folder / "gpu-1")
    for _ in range(2):
        assert leases.take(["gpu-0", "gpu-1", "gpu-2"], 3) == (["gpu-0", "gpu-1", "gpu-2"], [])
    assert target.read_text() == "mine"
    assert DeviceLeases(folder).take(["gpu-0", "gpu-1", "gpu-2"], 3) == (["gpu-0", "gpu-1"], ["gpu-2"])
    warnings = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in warnings] == [str(folder / name) for name in ("gpu-0", "gpu-1")] * 2
    assert warnings[1] == (
        f"litlab: {folder / 'gpu-1'}: not a regular file; jobs may share devices with those of other commands"
    )
    hold_leases([str(folder / name) for name in ("gpu-0", "gpu-1", "missing")])


def test_a_folder_of_others_is_not_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target, link, shared, foreign = (tmp_path / name for name in ("target", "link", "shared", "foreign"))
    for folder, mode in ((target, 0o700), (shared, 0o777), (foreign, 0o700)):
        folder.mkdir()
        folder.chmod(mode)
    link.symlink_to(target)
    if os.getuid() == 0:
        os.chown(foreign, 12345, 12345)
    for folder in (link, shared, foreign) if os.getuid() == 0 else (link, shared):
        leases = DeviceLeases(folder)
        assert leases.take(["gpu-0"], 1) == (["gpu-0"], [])
        assert leases.files(["gpu-0"]) == []
        leases.release(["gpu-0"])
        assert list(folder.iterdir()) == []
        assert capsys.readouterr().err == (
            f"litlab: {folder}: expected a folder of yours with mode 700, and no link; "
            "jobs may share devices with those of other commands\n"
        )
    DeviceLeases(tmp_path / "no" / "folder")
    assert f"{tmp_path / 'no' / 'folder'}: No such file or directory" in capsys.readouterr().err


def test_the_folder_is_private_and_of_this_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LITLAB_LEASES")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    DeviceLeases()
    (folder,) = tmp_path.iterdir()
    assert folder == lease_folder() == tmp_path / f"litlab-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert lease_folder() == tmp_path / f"litlab-{os.getuid()}-slurm-17"
