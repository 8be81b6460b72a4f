"""Provenance of a run: the state of a real git repository, the command, the machine."""

import os
import subprocess
from importlib import metadata
from pathlib import Path

import pytest

from litlab.runs.directory import RunDirectory
from litlab.runs.provenance import MAX_TEXT, describe_launch, describe_machine


def git(project: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"]
    process = subprocess.run(
        ["git", "-C", str(project), *identity, *arguments], capture_output=True, text=True, check=True
    )
    return process.stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    folder = tmp_path / "project"
    folder.mkdir()
    git(folder, "init")
    (folder / "net.py").write_text("width = 3\n")
    (folder / ".gitignore").write_text("ignored.py\n")
    git(folder, "add", ".")
    git(folder, "commit", "-m", "first")
    return folder


def test_a_clean_tree(project: Path) -> None:
    code = describe_launch(project, [])["code"]
    commit = git(project, "rev-parse", "HEAD")
    assert code == {"commit": commit, "diff": "", "diff_complete": True, "untracked": {}}


def test_the_diff_restores_the_changes(project: Path) -> None:
    (project / "net.py").write_text("width = 4\n")
    (project / "staged.py").write_text("depth = 2\n")
    git(project, "add", "staged.py")
    code = describe_launch(project, [])["code"]
    git(project, "stash")
    subprocess.run(["git", "-C", str(project), "apply"], input=code["diff"], text=True, check=True)
    assert (project / "net.py").read_text() == "width = 4\n"
    assert (project / "staged.py").read_text() == "depth = 2\n"


def test_untracked_sources_are_recorded_with_their_text(project: Path) -> None:
    (project / "new").mkdir()
    (project / "new" / "größe.py").write_text("depth = 2\n")
    (project / "weights.bin").write_bytes(b"\0" * 10)
    (project / "long.py").write_text("#" * (MAX_TEXT + 1))
    (project / "link.py").symlink_to("net.py")
    (project / "ignored.py").write_text("secret\n")
    assert describe_launch(project, [])["code"]["untracked"] == {
        "new/größe.py": "depth = 2\n",
        "weights.bin": None,
        "long.py": None,
        "link.py": None,
    }


def test_a_long_diff_is_cut(project: Path) -> None:
    (project / "net.py").write_text("# long\n" * (MAX_TEXT // 7 + 1))
    code = describe_launch(project, [])["code"]
    assert not code["diff_complete"]
    assert len(code["diff"]) == MAX_TEXT


def test_other_runs_are_no_sources(project: Path) -> None:
    RunDirectory.create(project / "outputs" / "name" / "run", "seed: 0\n", {"config.yaml": ""})
    (project / "outputs" / "notes.md").write_text("mine")
    assert describe_launch(project, [])["code"]["untracked"] == {"outputs/notes.md": "mine"}


def test_a_folder_inside_a_repository(project: Path) -> None:
    (project / "sub").mkdir()
    (project / "sub" / "new.py").write_text("1\n")
    (project / "net.py").write_text("width = 4\n")
    code = describe_launch(project / "sub", [])["code"]
    assert code["untracked"] == {"new.py": "1\n"}
    assert "+width = 4" in code["diff"]


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "net.py").touch()
    provenance = describe_launch(tmp_path, ["litlab", "train", "data.url=https://user:hunter2@example.org/a"])
    assert provenance["code"] is None
    assert provenance["project"] == str(tmp_path)
    assert provenance["command"] == ["litlab", "train", "data.url=https://***@example.org/a"]


def test_a_repository_of_another_user_is_noted_with_what_to_do(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """git tells nothing about a repository that is mounted into a container, say, with another owner."""
    monkeypatch.setenv("HOME", str(project.parent))
    if os.geteuid() == 0:
        os.chown(project, 12345, 12345)
    else:
        monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    launch = describe_launch(project, [])
    reason = f"git: detected dubious ownership in repository at '{project}'"
    assert launch["code"] is None
    assert launch["code_problem"] == f"{reason}; to trust it: git config --global --add safe.directory {project}"
    note = f"note: the commit and the changes of the code are not recorded: {launch['code_problem']}\n"
    assert capsys.readouterr().err == note


def test_a_repository_without_a_commit_is_noted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    git(tmp_path, "init")
    assert describe_launch(tmp_path, [])["code_problem"] == "the repository has no commit yet"
    assert capsys.readouterr().err.endswith("are not recorded: the repository has no commit yet\n")


def test_without_git(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert describe_launch(project, [])["code"] is None


def test_the_machine() -> None:
    machine = describe_machine()
    assert machine["cores"] >= 1
    assert machine["processor"]
    expected = {name: metadata.version(name) for name in ("torch", "lightning", "hydra-core", "PyYAML", "litlab")}
    assert machine["packages"].items() >= expected.items()
