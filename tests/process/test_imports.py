"""Imports in a thread: complete, with the collector as before, and their errors raised where they are awaited."""

import gc
import sys
from pathlib import Path

import pytest

from litlab.process.imports import ImportThread, import_modules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_no_garbage_is_collected_meanwhile(folder: Path) -> None:
    (folder / "observes_gc.py").write_text("import gc\nenabled = gc.isenabled()\n", encoding="utf-8")
    import_modules(["observes_gc"])
    assert not sys.modules.pop("observes_gc").enabled
    assert gc.isenabled()


def test_an_error_is_raised_by_who_waits(folder: Path) -> None:
    (folder / "fails_to_import.py").write_text("raise OSError('no such library')\n", encoding="utf-8")
    thread = ImportThread(["fails_to_import"])
    thread.start()
    with pytest.raises(OSError, match="no such library"):
        thread.finish()
    assert gc.isenabled()
