"""Restore what commands change in this process: its environment and the places where it looks for packages."""

import os
import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _environment_restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = os.environ.copy()
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    os.environ.clear()
    os.environ.update(before)
