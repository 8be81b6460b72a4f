"""Locks of directories, and their owners."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.processes import lock_owner

from litlab.errors import InUseError, UserError
from litlab.runs import lock as lock_module
from litlab.runs.lock import directory_lock, is_locked, temporary_lock

HOLD_ELSEWHERE = """
import os, socket, sys, time
from pathlib import Path
from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import HeartbeatThread
from litlab.runs.lock import directory_lock

if os.geteuid():
    socket.gethostname = lambda: "elsewhere"
with directory_lock(Path(sys.argv[1])), HeartbeatThread(RunDirectory(Path(sys.argv[1]))):
    while not (Path(sys.argv[1]) / ".heartbeat").exists():
        time.sleep(0.01)
    print("locked", flush=True)
    time.sleep(100)
"""


def test_the_error_names_the_owner_until_it_is_killed(tmp_path: Path) -> None:
    with lock_owner(tmp_path) as owner:
        message = rf"is in use by process {owner.pid} on \S+; wait for it or stop it"
        with pytest.raises(UserError, match=message), directory_lock(tmp_path):
            pass
    with directory_lock(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


def test_it_can_be_acquired_again_also_after_an_error(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(UserError, match="in use"), directory_lock(tmp_path), directory_lock(tmp_path):
            pass


def test_a_temporary_lock_has_one_holder_at_a_time_and_leaves_no_file(tmp_path: Path) -> None:
    """Check it with holders that remove the file while others wait for it."""
    holders: list[int] = []
    most: list[int] = []

    def hold(number: int) -> None:
        for _ in range(40):
            with temporary_lock(tmp_path / ".x.lock"):
                holders.append(number)
                time.sleep(0.0003)
                most.append(len(holders))
                holders.remove(number)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(hold, range(4)))
    assert most == [1] * 160
    assert list(tmp_path.iterdir()) == []


def test_a_child_process_does_not_keep_it(tmp_path: Path) -> None:
    with directory_lock(tmp_path):
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    try:
        time.sleep(0.1)
        with directory_lock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_process_id_that_is_used_again(tmp_path: Path) -> None:
    with directory_lock(tmp_path):
        assert is_locked(tmp_path)
        long_ago = time.time() - 10**7  # before this process, perhaps before the machine, started
        os.utime(tmp_path / ".lock", (long_ago, long_ago))
        assert not is_locked(tmp_path)


def test_the_owner_of_this_host_is_found_when_the_file_system_has_another_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with directory_lock(tmp_path):
        a_day_ago = time.time() - 86_400  # as a server stamps the file whose clock is a day late
        os.utime(tmp_path / ".lock", (a_day_ago, a_day_ago))
        monkeypatch.setattr(lock_module, "file_system_time", lambda directory: a_day_ago)
        assert is_locked(tmp_path)


def test_an_owner_on_another_host_is_alive_as_long_as_its_heartbeat(tmp_path: Path) -> None:
    """A process with a host name of its own, where this is root."""
    command = [sys.executable, "-c", HOLD_ELSEWHERE, str(tmp_path)]
    if os.geteuid() == 0:
        command = ["unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh", *command]
    heartbeat = tmp_path / ".heartbeat"
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        try:
            assert owner.stdout is not None
            assert owner.stdout.readline() == "locked\n"
            message = rf"is in use by process {owner.pid} on elsewhere; wait for it or stop it"
            with pytest.raises(InUseError, match=message), directory_lock(tmp_path):
                pass
            set_age(tmp_path / ".lock", 1000)
            assert is_locked(tmp_path), "by its heartbeat"
        finally:
            owner.send_signal(signal.SIGKILL)
    assert is_locked(tmp_path), "its heartbeat is not old yet"
    set_age(heartbeat, 61)
    assert not is_locked(tmp_path)


def test_a_heartbeat_from_before_the_lock_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".heartbeat").touch()
    set_age(tmp_path / ".heartbeat", 1000)  # left by an owner that was killed
    (tmp_path / ".lock").write_text("process 1 on elsewhere")
    assert is_locked(tmp_path)


def set_age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)
