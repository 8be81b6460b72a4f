"""Locks of directories, and their owners."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.processes import lock_owner

from litlab.errors import UserError
from litlab.runs.lock import directory_lock, is_locked


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
