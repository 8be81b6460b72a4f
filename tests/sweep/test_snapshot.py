import subprocess
import sys
from pathlib import Path

import pytest

from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.sweep import snapshot as module
from litlab.sweep.snapshot import record_snapshot, snapshot_sources


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def names(snapshot: Path) -> list[str]:
    return sorted(str(path.relative_to(snapshot)) for path in snapshot.rglob("*") if path.is_file())


def git(project: Path, *arguments: str) -> None:
    subprocess.run(["git", "-C", str(project), *arguments], check=True, capture_output=True)


def test_git_decides_which_files_are_copied(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project, {"net.py": "a = 1\n", "words.txt": "tracked", ".gitignore": "ignored.py\n", "ignored.py": ""})
    git(tmp_path, "init", "-q", str(project))
    git(project, "add", "net.py", "words.txt", ".gitignore")
    write(project, {"new.py": "", "notes.txt": "untracked", "runs/0/.hydra/config.yaml": "", "runs/0/config.yaml": ""})
    snapshot = snapshot_sources(project, tmp_path / "study")
    assert names(snapshot) == [".gitignore", "net.py", "new.py", "words.txt"]
    assert (snapshot / "net.py").read_text() == "a = 1\n"


def test_without_git_sources_are_copied_by_their_suffix(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(
        project,
        {"src/net.py": "", "data.bin": "", "outputs/x.py": "", ".venv/y.py": "", "s/study.yaml": "", "s/z.py": ""},
    )
    assert names(snapshot_sources(project, tmp_path / "study")) == ["src/net.py"]


def test_equal_sources_share_a_copy_and_edited_ones_get_another(tmp_path: Path) -> None:
    project = tmp_path / "project"
    write(project, {"net.py": "a = 1\n"})
    first, again = snapshot_sources(project, tmp_path), snapshot_sources(project, tmp_path)
    write(project, {"net.py": "a = 2\n"})
    edited = snapshot_sources(project, tmp_path)
    assert first == again != edited
    assert ((first / "net.py").read_text(), (edited / "net.py").read_text()) == ("a = 1\n", "a = 2\n")


def test_large_files_and_links_are_left_out_and_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_FILE_BYTES", 10)
    project = tmp_path / "project"
    write(project, {"a.py": "x" * 11, "b.py": "x" * 10, "c.py": "x" * 10})
    (project / "d.py").symlink_to("a.py")
    assert names(snapshot_sources(project, tmp_path / "study")) == ["b.py", "c.py"]
    monkeypatch.setattr(module, "MAX_BYTES", 19)
    with pytest.raises(UserError, match=r"too much for a snapshot.*study\.snapshot=false"):
        snapshot_sources(project, tmp_path / "other")
    assert not (tmp_path / "other").exists()


IMPORT = """
import sys
from pathlib import Path
from litlab.config.trust import Trust
from litlab.runs.directory import RunDirectory
sys.path.insert(len(sys.path), sys.argv[2])  # as an editable installation of the project does
run = RunDirectory(Path(sys.argv[1]))
Trust(run, None, ()).make_importable()
import net, random
print(net.a, random.__file__)
"""


def test_a_run_imports_its_snapshot_and_not_the_edited_project(tmp_path: Path) -> None:
    """Also where the project is installed in editable mode. No file of it replaces one of Python's modules."""
    project, run = tmp_path / "project", RunDirectory(tmp_path / "study" / "0000")
    write(project, {"src/net.py": "a = 1\n", "random.py": "1 / 0\n"})
    run.path.mkdir(parents=True)
    snapshot = snapshot_sources(project, tmp_path / "study")
    record_snapshot(run, snapshot)
    write(project, {"src/net.py": "a = 2\n"})
    command = [sys.executable, "-P", "-c", IMPORT, str(run.path), str(project / "src")]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=project).stdout.split()
    assert output[0] == "1"
    assert not output[1].startswith(str(project))
    moved = run.path.parent.rename(tmp_path / "moved") / "0000"
    assert RunDirectory(moved).snapshot() == tmp_path / "moved" / ".sources" / snapshot.name
