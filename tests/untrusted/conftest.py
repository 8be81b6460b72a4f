"""Untrusted runs, in a process whose state is restored after each test."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.saved_run import CNN_NODE, make_info, make_network, make_run

from litlab.runs.directory import RunDirectory


@pytest.fixture(autouse=True)
def _restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Change to an empty folder, and restore environment, import paths and modules afterwards."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("path", "meta_path"):
        monkeypatch.setattr(sys, name, [*getattr(sys, name)])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        if name.partition(".")[0] in ("theirs", "hubconf", "unasked"):
            del sys.modules[name]


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "executed"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Make an unsigned, so untrusted run of a network."""
    return make_run(tmp_path / "downloaded" / "run", make_network(), CNN_NODE, make_info())


@pytest.fixture
def whole(tiny_run: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Make an untrusted run with data, task and Trainer."""
    copied = RunDirectory(Path(shutil.copytree(tiny_run.path, tmp_path / "downloaded" / "whole")))
    (copied.path / ".signature").unlink(missing_ok=True)
    return copied
