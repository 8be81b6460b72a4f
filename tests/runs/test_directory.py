"""Claiming a run directory, and reading its records."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory


def test_a_new_directory_holds_the_config_and_the_record_of_hydra(tmp_path: Path) -> None:
    (tmp_path / "a" / "empty").mkdir(parents=True)
    assert RunDirectory.create(tmp_path / "a" / "empty", "seed: 0\n", {}).config.exists()
    run = RunDirectory.create(tmp_path / "a" / "run", "seed: 0\n", {"overrides.yaml": "- seed=0\n"})
    assert run.config.read_text() == "seed: 0\n"
    assert (run.path / ".hydra" / "overrides.yaml").read_text() == "- seed=0\n"
    assert {path.name for path in run.path.iterdir()} == {"config.yaml", ".hydra"}
    assert RunDirectory.existing(run.path) == run
    with pytest.raises(UserError, match="existing run, which is never overwritten"):
        RunDirectory.create(run.path, "seed: 1\n", {})
    assert run.config.read_text() == "seed: 0\n"


@pytest.mark.parametrize("name", [".", ".hidden"])
def test_a_directory_with_content_and_a_file_are_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / ".hidden").touch()
    with pytest.raises(UserError, match="not empty"):
        RunDirectory.create(tmp_path / name, "", {})
    assert [path.name for path in tmp_path.iterdir()] == [".hidden"]


def test_one_of_many_threads_gets_it(tmp_path: Path) -> None:
    for attempt in range(10):
        start = Barrier(8)

        def claim(number: int, path: Path = tmp_path / str(attempt), start: Barrier = start) -> bool:
            start.wait()
            try:
                RunDirectory.create(path, f"seed: {number}\n", {})
            except UserError:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(claim, range(8)))
        assert won.count(True) == 1
        assert (tmp_path / str(attempt) / "config.yaml").read_text() == f"seed: {won.index(True)}\n"


def test_a_missing_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere: no run directory: it does not exist"):
        RunDirectory.existing(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"it has no config\.yaml"):
        RunDirectory.existing(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with pytest.raises(UserError, match=r"result\.json is missing"):
        run.read_json(run.result)
    for content in (b'{"status": ', b"\xff\xfe"):
        run.result.write_bytes(content)
        with pytest.raises(UserError, match=r"result\.json is damaged"):
            run.read_json(run.result)


def test_the_project_is_where_the_run_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, here = tmp_path / "project", tmp_path / "here"
    project.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    run = RunDirectory(tmp_path)
    assert run.project() == Path.cwd()
    run.provenance.write_text(json.dumps({"project": str(project)}))
    assert run.project() == project
    project.rmdir()
    assert run.project() == here, "the run was moved to a machine without it"


@pytest.mark.parametrize("number", [1, 3])
def test_configs_of_another_format_are_refused(number: int, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, f"format: {number}\nseed: 0\n", {})
    with pytest.raises(
        UserError, match=rf"config\.yaml: its format is {number}: this version of litlab reads format 2"
    ):
        run.read_config()
