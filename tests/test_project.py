"""The folder that `litlab new` makes, and its update: names, sources of litlab, what is in it, merges."""

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from litlab import project
from litlab.errors import UserError
from litlab.project import (
    RECORD,
    Answers,
    Merge,
    create,
    installed_litlab,
    is_local,
    package_name,
    parse_requirement,
    update,
)
from litlab.testing import ConfigSuite

ANSWERS = Answers("my-gratings", "my_gratings", "litlab @ file:///wheels/litlab-0.2.0-py3-none-any.whl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project that tests only look at."""
    folder = tmp_path_factory.mktemp("new") / "My Gratings"
    create(folder, ANSWERS)
    return folder


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small template that a test may change, in place of litlab's."""
    folder = tmp_path / "template"
    folder.mkdir()
    shutil.copy(project.TEMPLATE / "copier.yml", folder)
    (folder / "Makefile.jinja").write_text("one\ntwo\nthree\nfour\nfive\n")
    (folder / "notes.txt.jinja").write_text("of {{ package }}\n")
    monkeypatch.setattr(project, "TEMPLATE", folder)
    return folder


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("myproject", "myproject"),
        ("My Project", "my_project"),
        ("my-project.v2", "my_project_v2"),
        ("ünï", "uni"),
        ("Straße", "strasse"),
        ("_hidden_", "hidden"),
        ("night & day!", "night_day"),
        ("{{ x }}", "x"),
    ],
)
def test_names_of_folders_become_packages(name: str, package: str) -> None:
    assert package_name(name) == package


@pytest.mark.parametrize("name", ["3d", "", "...", "日本", "smørbrød", "2", "'\"", "\n"])
def test_names_without_a_package_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"gives no name of a Python package: expected a name .* such as my-project"):
        package_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("class", "a keyword of Python"),
        ("Json", "a module of Python's standard library"),
        ("torch", "an installed package"),
        ("PyTorch Lightning", "an installed package"),
        ("litlab", "an installed package"),
        ("tests", "a folder of the project"),
    ],
)
def test_names_that_are_taken_are_refused(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"^{name}: the package would be .*, which is {reason}; choose another name$"):
        package_name(name)


def test_a_name_that_no_file_system_takes_is_refused() -> None:
    with pytest.raises(UserError, match="the name has 300 characters; expected at most 100"):
        package_name("x" * 300)


@pytest.mark.parametrize(
    ("origin", "requirement"),
    [
        (
            {"url": "https://git.example.org/litlab.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "litlab @ git+https://git.example.org/litlab.git@abc",
        ),
        ({"url": "https://example.org/litlab.whl", "archive_info": {}}, "litlab @ https://example.org/litlab.whl"),
        ({"url": "file:///", "dir_info": {"editable": True}}, "litlab @ file:///"),
    ],
)
def test_the_source_of_this_litlab(
    origin: dict[str, object], requirement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install(tmp_path, monkeypatch, json.dumps(origin))
    assert installed_litlab() == requirement


def test_an_unknown_or_missing_source_asks_for_the_option(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install(tmp_path, monkeypatch, None)
    with pytest.raises(UserError, match=r"is not known; name a wheel, .*: --litlab git\+https"):
        installed_litlab()
    _install(tmp_path, monkeypatch, '{"url": "file:///gone/lit%20lab.whl", "archive_info": {}}')
    with pytest.raises(UserError, match=r"^/gone/lit lab.whl, which .* is not there anymore; name a wheel, "):
        installed_litlab()


def _install(folder: Path, monkeypatch: pytest.MonkeyPatch, origin: str | None) -> None:
    """Put the metadata of an installed litlab before those of the real one."""
    metadata = folder / "litlab-9.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text("Name: litlab\nVersion: 9\n")
    if origin is not None:
        (metadata / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(str(folder))


def test_sources_of_litlab_become_requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lit lab").mkdir()
    (tmp_path / "lit lab" / "pyproject.toml").touch()
    wheel = tmp_path / "litlab-0.2.0-py3-none-any.whl"
    wheel.touch()
    monkeypatch.chdir(tmp_path)
    assert parse_requirement(wheel.name) == f"litlab @ file://{wheel}"
    assert parse_requirement("lit lab") == f"litlab @ file://{tmp_path}/lit%20lab"
    url = "git+https://git.example.org/litlab.git@v0.2.0"
    assert parse_requirement(url) == f"litlab @ {url}"
    for requirement in ("litlab==0.2", "litlab[onnx]>=0.2,<0.3", "litlab", f"litlab @ {url}"):
        assert parse_requirement(requirement) == requirement
    assert is_local(parse_requirement(wheel.name))
    assert not is_local(f"litlab @ {url}")


@pytest.mark.parametrize("source", ["nowhere.whl", "", "torch", "litlab-0.2.whl", 'litlab=="0.2"', "litlab==0.2\nx"])
def test_other_sources_are_refused(source: str) -> None:
    with pytest.raises(UserError, match=r"(?s)^--litlab .* neither a URL nor a requirement; name a wheel, "):
        parse_requirement(source)


def test_folders_and_files_that_are_no_litlab_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, Path(__file__)):
        with pytest.raises(UserError, match=r"expected a wheel \(.whl\), or a folder with a pyproject.toml"):
            parse_requirement(str(path))


def test_every_file_parses_and_is_filled_in(made: Path) -> None:
    files = {path.relative_to(made).as_posix(): path.read_text() for path in made.rglob("*") if path.is_file()}
    assert {"Makefile", "README.md", ".gitignore", ".github/workflows/test.yml", "src/my_gratings/model.py"} < {*files}
    for name, text in files.items():
        assert "{{" not in text or name == RECORD, name
        assert text.endswith("\n"), name
        if name.endswith(".py"):
            compile(text, name, "exec")
        elif name.endswith((".yaml", ".yml")):
            assert yaml.safe_load(text), name
    settings = tomllib.loads(files["pyproject.toml"])["project"]
    assert (settings["name"], settings["dependencies"]) == ("my-gratings", [ANSWERS.litlab])
    assert json.loads(files.pop(RECORD))["files"] == files


def test_python_is_clean(made: Path) -> None:
    ruff, rules = Path(sys.executable).with_name("ruff"), "E,F,W,I,UP,B,SIM,RUF100,C4,PT,PTH,RET,N,D2,D3,D4"
    options = ["--isolated", "--no-cache", "--line-length=120", "--target-version=py311"]
    lint = [ruff, "check", *options, f"--select={rules}", "--config=lint.pydocstyle.convention='google'", "."]
    for command in (lint, [ruff, "format", "--check", *options, "."]):
        done = subprocess.run(command, cwd=made, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_config_is_valid(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])

    class Configs(ConfigSuite):
        project = made

    names = Configs.names()
    assert {name.partition("=")[0] for name in names} == {"data", "experiment", "model", "study", "task"}
    for name in names:
        Configs().test_config_is_valid(name)


def test_an_empty_folder_is_filled_and_others_are_refused(template: Path, tmp_path: Path) -> None:
    empty, full, file = tmp_path / "empty", tmp_path / "full", tmp_path / "file"
    empty.mkdir()
    full.mkdir()
    (full / "thesis.tex").touch()
    file.touch()
    create(empty, ANSWERS)
    assert sorted(path.name for path in empty.iterdir()) == [RECORD, "Makefile", "notes.txt"]
    refused = {
        empty: "is not empty",
        full: "is not empty, it holds thesis.tex; expected a new folder or an empty one",
        file: "is a file; choose another folder",
        tmp_path / "a" / "b": r"a: no such folder; create it first",
    }
    for folder, message in refused.items():
        with pytest.raises(UserError, match=message):
            create(folder, ANSWERS)
    assert [path.name for path in full.iterdir()] == ["thesis.tex"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "full", "template"]


def test_a_folder_that_can_not_be_written(template: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="/proc/new can't be written: "):
        create(Path("/proc/new"), ANSWERS)


def test_ctrl_c_leaves_an_empty_folder_empty(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, rename = tmp_path / "new", Path.rename
    folder.mkdir()

    def interrupted(source: Path, target: Path) -> None:
        rename(source, target)
        if source.name == "Makefile":
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        create(folder, ANSWERS)
    assert list(folder.iterdir()) == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # copier leaves a scan of a folder open
def test_a_failure_in_the_template_leaves_nothing(template: Path, tmp_path: Path) -> None:
    (template / "zzz.jinja").write_text("{{ 1 / 0 }}")
    with pytest.raises(ZeroDivisionError):
        create(tmp_path / "new", ANSWERS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["template"]


@pytest.fixture
def own(template: Path, tmp_path: Path) -> Iterator[Path]:
    """Return a project made from the small template."""
    folder = tmp_path / "own"
    create(folder, ANSWERS)
    return folder


def test_an_update_merges_both_sides(own: Path, template: Path) -> None:
    makefile = own / "Makefile"
    makefile.write_text("ONE\ntwo\nthree\nfour\nfive\nmine\n")
    (template / "Makefile.jinja").write_text("one\ntwo\nthree\n4\nfive\n")
    (template / "notes.txt.jinja").write_text("about {{ package }}\n")
    (template / "more.txt.jinja").write_text("new\n")
    merged = "ONE\ntwo\nthree\n4\nfive\nmine\n"
    assert update(own, None) == [
        Merge("Makefile", merged), Merge("more.txt", "new\n"), Merge("notes.txt", "about my_gratings\n"),
    ]  # fmt: skip
    assert makefile.read_text() == merged
    assert (own / "notes.txt").read_text() == "about my_gratings\n"
    assert update(own, None) == [], "the record is that of the new template"


def test_conflicts_are_marked(own: Path, template: Path) -> None:
    makefile = own / "Makefile"
    makefile.write_text("one\nTWO\nthree\nfour\nfive\n")
    (template / "Makefile.jinja").write_text("one\n2\nthree\nfour\nfive\n")
    (merge,) = update(own, None)
    assert merge.num_conflicts == 1
    assert makefile.read_text().startswith("one\n<<<<<<< yours\nTWO\n=======\n2\n>>>>>>> template of litlab ")
    makefile.write_text("one\nTWO\nthree\nfour\nfive\n")
    assert update(own, None) == [], "a conflict that is settled does not come back"


def test_removed_files_stay_away_and_changed_ones_stay(own: Path, template: Path) -> None:
    (own / "Makefile").unlink()
    (own / "notes.txt").write_text("mine\n")
    (template / "Makefile.jinja").write_text("one\n")
    (template / "notes.txt.jinja").unlink()
    assert update(own, None) == []
    assert sorted(path.name for path in own.iterdir()) == [RECORD, "notes.txt"]


def test_a_file_that_the_template_drops_is_removed(own: Path, template: Path) -> None:
    (template / "notes.txt.jinja").unlink()
    assert update(own, None) == [Merge("notes.txt", None)]
    assert not (own / "notes.txt").exists()


def test_an_update_names_another_litlab(made: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(made, own)
    (merge,) = update(own, "litlab @ git+https://git.example.org/litlab.git@v0.3.0")
    assert merge.path == "pyproject.toml"
    assert '"litlab @ git+https://git.example.org/litlab.git@v0.3.0",' in (own / "pyproject.toml").read_text()


def test_without_git_nothing_is_changed(own: Path, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "Makefile").write_text("one\nTWO\nthree\nfour\nfive\n")
    before = {path: path.read_text() for path in own.iterdir()}
    (template / "Makefile.jinja").write_text("1\ntwo\nthree\nfour\nfive\n")
    (template / "more.txt.jinja").write_text("new\n")
    monkeypatch.setenv("PATH", str(template))
    with pytest.raises(UserError, match=r"^Makefile was changed here and in the template: install git"):
        update(own, None)
    assert {path: path.read_text() for path in own.iterdir()} == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"files": {"../thesis.tex": "x"}}, "is damaged"),
        ({"files": {"/etc/passwd": "x"}}, "is damaged"),
        ({"answers": {"name": "x", "package": "../x", "litlab": "litlab"}}, "is damaged"),
        ({"answers": {"name": "my-x", "package": "my_x", "litlab": 'litlab"\nx = "'}}, "is damaged"),
        ({"answers": {}}, "can't be read"),
        ({"format": 2}, "is damaged, or of another version of litlab"),
    ],
)
def test_a_record_of_somebody_else_is_checked(own: Path, change: dict[str, object], message: str) -> None:
    record = json.loads((own / RECORD).read_text())
    (own / RECORD).write_text(json.dumps(record | change))
    with pytest.raises(UserError, match=f"{RECORD} {message}.*; restore it from your version control"):
        update(own, None)


def test_other_folders_have_no_update(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file; expected the folder of a project that litlab new made"):
        update(tmp_path, None)
