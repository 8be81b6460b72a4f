"""`litlab train` on file systems that cannot sync directories or have no locks, by a preloaded library."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.runs import TINY

SOURCE = Path(__file__).parents[1] / "support" / "file_system_faults.c"
NO_LOCKS = "its file system has no locks (NFS without a lock service? Lustre without the mount option flock?)"
Call = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    path = tmp_path_factory.mktemp("library") / "faults.so"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", path, SOURCE], check=True)
    return path


@pytest.fixture
def call(library: Path, tmp_path: Path) -> Call:
    """Return a function that calls `litlab train` where one folder has a fault."""

    def call_with(fault: str, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-P", "-m", "litlab", "train", *arguments, *TINY]
        faults = {"LD_PRELOAD": str(library), "FAULT": fault, "FAULTY_FOLDER": str(folder)}
        environment = os.environ | faults
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)

    return call_with


def test_directories_that_cannot_be_synced(call: Call, tmp_path: Path) -> None:
    done = call("fsync", tmp_path, "--freeze-only", "hydra.run.dir=run")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["project"] == str(tmp_path)


def test_a_run_without_locks_is_refused_and_leaves_nothing(call: Call, tmp_path: Path) -> None:
    done = call("flock", tmp_path, "hydra.run.dir=outputs/run")
    assert done.returncode == 1
    assert done.stderr.startswith(f"litlab: {tmp_path}/outputs/run: {NO_LOCKS}; a run makes a directory of its own")
    assert "hydra.run.dir=" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_locks_is_refused_and_leaves_nothing(call: Call, tmp_path: Path) -> None:
    done = call("flock", tmp_path, "-m", "seed=0,1", "study.name=mine")
    assert done.returncode == 1
    assert NO_LOCKS in done.stderr
    assert "hydra.sweep.dir=" in done.stderr
    assert list(tmp_path.iterdir()) == []


LOCKED = """
import sys
from pathlib import Path
from litlab.runs.lock import file_lock

try:
    with file_lock(Path(sys.argv[1]), wait=True):
        pass
except OSError as error:
    print(error.strerror)
"""


def test_a_cache_without_locks_says_so_and_keeps_no_lock_file(library: Path, tmp_path: Path) -> None:
    environment = os.environ | {"LD_PRELOAD": str(library), "FAULT": "flock", "FAULTY_FOLDER": str(tmp_path)}
    command = [sys.executable, "-c", LOCKED, tmp_path / ".cache.lock"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == (f"{NO_LOCKS}\n", "")
    assert list(tmp_path.iterdir()) == []
