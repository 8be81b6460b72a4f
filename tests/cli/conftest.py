"""Call commands in this process, and restore what they change in it: environment and import path."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from litlab.cli.main import main
from litlab.sweep.backends.local import LocalPool


@pytest.fixture(autouse=True)
def _environment_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(sys, "path", [*sys.path])
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def call_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Return a function that calls `litlab` in a folder, and returns its exit code, output and errors.

    It is for commands that train nothing: they are over before a pool would be ready, which costs seconds.
    """
    monkeypatch.setattr(LocalPool, "start", lambda pool: None)

    def call(folder: Path, *arguments: str) -> tuple[int, str, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["litlab", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return call
