"""The script of CI, with make and the installed programs replaced."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[1]
COUNT = "on a real SLURM cluster: {} passed, 0 failed"


@pytest.mark.parametrize(
    ("user", "count", "code"),
    [(0, COUNT.format(7), 0), (0, COUNT.format(0), 1), (0, "", 1), (1000, COUNT.format(0), 0)],
)
def test_as_root_a_real_cluster_is_needed(tmp_path: Path, user: int, count: str, code: int) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(CHECKOUT / ".ci" / "run", tmp_path / ".ci")
    commands = {"make": f'echo "make $1"\necho "{count}"', "id": f"echo {user}", "apt-get": "exit 1"}
    for name, script in (commands | dict.fromkeys(("chromium", "slurmctld", "munged"), "exit 1")).items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([tmp_path / ".ci" / "run"], capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr
    assert "make check" in done.stdout
    assert ("no test ran on a real SLURM cluster" in done.stderr) == (code == 1)
    assert ("are skipped" in done.stderr) == (user != 0)
