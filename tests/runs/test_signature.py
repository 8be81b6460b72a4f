"""Signatures: own runs are signed with the key of this user and unchanged since."""

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.runs import is_own

from litlab.runs.directory import RunDirectory
from litlab.runs.signature import key_file, sign, signature_problem


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set up a user without a key."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    os.environ.pop("LITLAB_SESSION_KEY", None)
    os.environ["XDG_STATE_HOME"] = str(tmp_path / "state")
    return tmp_path / "state"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    run.config.write_text("format: 2\n")
    run.provenance.write_text(json.dumps({"project": "/home/me/project"}))
    return run


def problem(run: RunDirectory) -> str:
    return signature_problem(run, run.config.read_bytes()) or ""


def test_a_signed_run_is_own_also_as_a_copy_and_with_more_in_it(run: RunDirectory, tmp_path: Path) -> None:
    assert problem(run) == "it is not signed"
    sign(run)
    assert is_own(run)
    run.provenance.write_text(json.dumps({"project": "/home/me/project", "machine": {"cores": 2}}))
    assert is_own(RunDirectory(Path(shutil.copytree(run.path, tmp_path / "copy"))))


def test_another_config_or_project_was_not_signed(run: RunDirectory) -> None:
    sign(run)
    for file, text in ((run.config, "format: 2 \n"), (run.provenance, '{"project": "/tmp/theirs"}')):
        before = file.read_text()
        file.write_text(text)
        assert "changed since it was signed" in problem(run)
        file.write_text(before)
        assert is_own(run)
    run.provenance.unlink()
    assert not is_own(run)


def test_bytes_cannot_move_between_config_and_project(run: RunDirectory) -> None:
    run.provenance.write_text('{"project": "ab"}')
    run.config.write_text("c")
    sign(run)
    run.provenance.write_text('{"project": "a"}')
    run.config.write_text("bc")
    assert not is_own(run)


@pytest.mark.parametrize("forged", [b"", b"litlab-1 " + b"0" * 64, b"litlab-1", b"\xff\xfe", b"litlab-1 \xc3\xa9"])
def test_a_forged_signature(run: RunDirectory, forged: bytes) -> None:
    sign(run)
    (run.path / ".signature").write_bytes(forged)
    assert not is_own(run)


def test_the_signature_of_another_user_is_not_ones_own(run: RunDirectory, tmp_path: Path) -> None:
    sign(run)
    os.environ["XDG_STATE_HOME"] = str(tmp_path / "other")
    message = problem(run)
    assert message is not None
    assert f"has no signing key {key_file()}; if you signed it on another machine, share that file's folder" in message
    other = RunDirectory(Path(shutil.copytree(run.path, tmp_path / "copy")))
    sign(other)
    assert "not yours" in problem(run)
    assert is_own(other)


def test_the_key_is_for_its_user_alone(run: RunDirectory) -> None:
    sign(run)
    assert key_file().stat().st_mode & 0o777 == 0o600
    assert [file.name for file in key_file().parent.iterdir()] == ["key"]
    key_file().chmod(0o640)
    assert f"chmod 600 {key_file()}" in problem(run)


@pytest.mark.parametrize("content", ["", "0" * 63, "x" * 64, "0" * 64 + "\nmore"])
def test_a_malformed_key_is_refused(run: RunDirectory, content: str) -> None:
    """An empty key would be everybody's."""
    sign(run)
    key_file().write_text(content)
    assert "does not hold a key" in problem(run)


def test_two_first_uses_at_once_agree(tmp_path: Path, run: RunDirectory) -> None:
    runs = [RunDirectory(Path(shutil.copytree(run.path, tmp_path / str(number)))) for number in range(16)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(sign, runs))
    assert all(map(is_own, runs))
    assert len({(run.path / ".signature").read_text() for run in runs}) == 1


def test_without_a_place_for_a_key_a_run_is_own_until_its_process_ends(run: RunDirectory, state: Path) -> None:
    state.write_text("a file, where a folder is needed")
    sign(run)
    assert is_own(run), "its worker is to train it"
    sign(run)
    assert is_own(run)
    del os.environ["LITLAB_SESSION_KEY"]
    assert problem(run).startswith("your key can't be read")


def test_a_relative_state_directory_is_ignored_as_the_specification_says(monkeypatch: pytest.MonkeyPatch) -> None:
    os.environ |= {"XDG_STATE_HOME": "here", "HOME": "/home/me"}
    assert key_file() == Path("/home/me/.local/state/litlab/key")
