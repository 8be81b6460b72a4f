"""Files that are complete or absent at every moment."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from litlab.runs.files import remove_if_empty, remove_temporary_files, write_atomic, write_json, write_text


def test_text_and_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "Größe\n")
    assert (tmp_path / "a").read_bytes() == "Größe\n".encode()
    write_json(tmp_path / "b", {"ü": [1, None]})
    assert (tmp_path / "b").read_text(encoding="utf-8") == '{\n  "ü": [\n    1,\n    null\n  ]\n}\n'
    (tmp_path / "touched").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "touched").stat().st_mode


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_nan(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a", {"x": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_write_keeps_the_old_file(error: BaseException, tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def write(file: BinaryIO) -> None:
        file.write(b"new, but not wh")
        raise error

    with pytest.raises(type(error)):
        write_atomic(tmp_path / "a", write)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


KILLED = """
import os, signal, sys
from pathlib import Path
from litlab.runs.files import write_atomic

def write(file):
    file.write(b"new" * 100_000)
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

write_atomic(Path(sys.argv[1]), write)
"""


def test_a_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    """The temporary file is hidden, and removed later."""
    write_text(tmp_path / "a", "old")
    process = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")])
    assert process.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name.startswith(".") for path in sorted(tmp_path.iterdir())] == [True, False]
    remove_temporary_files(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]


def test_content_is_synced_before_the_rename_and_the_directory_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between any two calls leaves complete files."""
    path, kept, calls = tmp_path / "a", tmp_path / "kept", []
    write_text(path, "old")
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        fsync(descriptor)
        status = os.fstat(descriptor)
        calls.append(("synced", "directory" if status.st_ino == tmp_path.stat().st_ino else f"{status.st_size} bytes"))

    def record_replace(source: Path, target: Path) -> None:
        replace(source, target)
        calls.append(("renamed to", target.name))

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    write_atomic(path, lambda file: file.write(b"newer"), keep=kept)
    directory = ("synced", "directory")
    assert calls == [("synced", "5 bytes"), ("renamed to", "kept"), directory, ("renamed to", "a"), directory]
    assert [file.read_text() for file in (path, kept)] == ["newer", "old"]


def test_empty_directories_are_removed_up_to_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cwd = tmp_path / "cwd"
    (cwd / "outputs" / "name" / "run").mkdir(parents=True)
    (cwd / "outputs" / "other").mkdir()
    monkeypatch.chdir(cwd)
    (cwd / "outputs" / "other" / "file").touch()
    for directory in ("name/run", "other"):
        remove_if_empty(cwd / "outputs" / directory)
    assert [path.name for path in (cwd / "outputs").rglob("*")] == ["other", "file"]
    (cwd / "outputs" / "other" / "file").unlink()
    remove_if_empty(cwd / "outputs" / "other")
    assert list(cwd.iterdir()) == []
    assert cwd.is_dir()
