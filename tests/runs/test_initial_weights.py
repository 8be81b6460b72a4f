"""The file that `init_from` names, and its copy in a run directory."""

import os
import sys
from pathlib import Path

import pytest

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.initial_weights import find_weights, hash_file, keep_weights

ARCHIVE = b"PK\x03\x04 of torch.save"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run", "format: 2\n", {})


def write(file: Path, content: bytes = ARCHIVE) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


def test_a_run_directory_means_its_best_checkpoint_or_else_its_last(run: RunDirectory) -> None:
    with pytest.raises(UserError, match="the run has no checkpoint yet"):
        find_weights(str(run.path))
    write(run.last, ARCHIVE + b"last")
    assert find_weights(str(run.path)) == {"path": str(run.last), "sha256": hash_file(run.last)}
    assert find_weights(str(run.last))["path"] == str(run.last)


def test_the_best_is_taken_where_there_is_one(run: RunDirectory) -> None:
    write(run.last), write(run.best)
    assert find_weights(str(run.path))["path"] == str(run.best)


def test_all_jobs_of_a_command_start_from_the_file_as_it_was_first(tmp_path: Path) -> None:
    file = write(tmp_path / "a.pt")
    first = find_weights(str(file))
    write(file, ARCHIVE + b"changed")
    assert find_weights(str(file)) == first != {"path": str(file), "sha256": hash_file(file)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing", "init_from={path}: no such file or run directory"),
        (
            "folder",
            "is no run directory, since it has no config.yaml; expected one, or a file with weights (.ckpt, .pt",
        ),
        ("study", "is a study; name one of its runs, such as 0000_seed-0"),
        ("text.pt", "is no file with weights; expected a checkpoint, or a state dict saved by torch.save or"),
        ("empty.pt", "is no file with weights"),
        ("pipe", "can't be read: not a regular file"),
    ],
)
def test_what_holds_no_weights_is_refused_in_one_line(name: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    write(tmp_path / "study" / "study.yaml")
    write(tmp_path / "study" / "0000_seed-0" / "config.yaml")
    write(tmp_path / "text.pt", b"hello")
    write(tmp_path / "empty.pt", b"")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError) as refused:
        find_weights(str(tmp_path / name))
    message = str(refused.value)
    assert expected.format(path=tmp_path / name) in message
    assert message.startswith("init_from=")
    assert "\n" not in message


def test_safetensors_is_needed_only_for_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "weights.pt", (2).to_bytes(8, "little") + b"{}")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(UserError, match="needs the package safetensors, which is not installed here; pip install"):
        find_weights(str(file))


def test_a_copy_does_not_follow_its_source(run: RunDirectory, tmp_path: Path) -> None:
    source = write(tmp_path / "a.pt")
    keep_weights(run, {"init_from": find_weights(str(source))})
    write(source, b"other")
    source.unlink()
    assert run.initial_weights.read_bytes() == ARCHIVE


def test_the_jobs_of_a_study_share_one_copy_which_outlasts_the_source(tmp_path: Path) -> None:
    config = {"init_from": find_weights(str(write(tmp_path / "a.pt")))}
    runs = [RunDirectory.create(tmp_path / "study" / name, "", {}) for name in "ab"]
    keep_weights(runs[0], config, tmp_path / "study")
    (tmp_path / "a.pt").unlink()
    keep_weights(runs[1], config, tmp_path / "study")
    assert runs[0].initial_weights.read_bytes() == ARCHIVE
    assert runs[0].initial_weights.samefile(runs[1].initial_weights)


@pytest.mark.parametrize("change", ["changed", "removed"])
def test_a_source_that_changes_before_it_is_copied_is_refused(change: str, run: RunDirectory, tmp_path: Path) -> None:
    source = write(tmp_path / "a.pt")
    config = {"init_from": find_weights(str(source))}
    source.unlink()
    if change == "changed":
        write(source, ARCHIVE + b"more")
    with pytest.raises(UserError, match=f"was {change} before it could be copied"):
        keep_weights(run, config)
    assert not run.initial_weights.exists()
