"""Files that are either whole or not there."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO

import pytest

from litlab.runs.files import remove_if_empty, write_atomic, write_json, write_text


def test_text_and_json(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "Größe\n")
    assert (tmp_path / "a").read_bytes() == "Größe\n".encode()
    write_json(tmp_path / "b", {"ü": [1, None]})
    assert (tmp_path / "b").read_text(encoding="utf-8") == '{\n  "ü": [\n    1,\n    null\n  ]\n}\n'


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_is_json(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a", {"x": value})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_write_that_raises_leaves_the_old_file_and_no_litter(error: BaseException, tmp_path: Path) -> None:
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


def test_a_write_that_is_killed_leaves_the_old_file(tmp_path: Path) -> None:
    """And a hidden temporary file, which no reader takes for the real one."""
    write_text(tmp_path / "a", "old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a")])
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "a").read_text() == "old"
    assert [path.name for path in tmp_path.glob("*") if not path.name.startswith(".")] == ["a"]
    write_text(tmp_path / "a", "newer")
    assert (tmp_path / "a").read_text() == "newer"


def test_a_reader_sees_the_old_or_the_new_file(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")
    with (tmp_path / "a").open() as reader:
        write_text(tmp_path / "a", "new")
        assert reader.read() == "old"
    assert (tmp_path / "a").read_text() == "new"


def test_permissions_are_the_usual_ones(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    write_text(tmp_path / "a", "")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_empty_directories_are_removed_up_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "outputs" / "name" / "run").mkdir(parents=True)
    (here / "outputs" / "other").mkdir()
    monkeypatch.chdir(here)
    remove_if_empty(here / "outputs" / "name" / "run")
    assert [path.name for path in (here / "outputs").iterdir()] == ["other"]
    remove_if_empty(here / "outputs" / "other")
    assert list(here.iterdir()) == []
    assert here.is_dir()


def test_what_holds_something_stays(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "file").touch()
    remove_if_empty(tmp_path / "run")
    assert (tmp_path / "run" / "file").exists()
