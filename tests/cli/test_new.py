"""The command `litlab new`: what it prints, and what it refuses."""

from collections.abc import Callable
from pathlib import Path

import pytest

Call = Callable[..., tuple[int, str, str]]
URL = "git+https://git.example.org/litlab.git@v0.2.0"


def test_makes_a_project_and_says_what_comes_next(tmp_path: Path, call_here: Call) -> None:
    code, output, errors = call_here(tmp_path, "new", "My Project", "--litlab", URL)
    assert (code, errors) == (0, "")
    assert output == (
        "Made My Project, with the package my_project. Next:\n\n    cd 'My Project'\n    make train\n    make test\n\n"
    )
    assert (tmp_path / "My Project" / "src" / "my_project" / "model.py").is_file()
    code, output, errors = call_here(tmp_path, "new", "My Project", "--litlab", URL)
    assert (code, output) == (1, "")
    assert errors.startswith(f"litlab: {tmp_path}/My Project is not empty, it holds ")


def test_the_present_folder_and_a_local_litlab(tmp_path: Path, call_here: Call) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "litlab-0.2.0-py3-none-any.whl").touch()
    code, output, errors = call_here(folder, "new", ".", "--litlab", "../litlab-0.2.0-py3-none-any.whl")
    assert (code, errors) == (0, "")
    assert output.startswith("Made ., with the package here. Next:\n\n    make train\n    make test\n\n")
    assert output.endswith("other machines and CI need one at a URL:\nlitlab new --update --litlab git+https://...\n")
    code, output, errors = call_here(folder, "new", "--update", "--litlab", URL)
    assert (code, output, errors) == (0, "updated  pyproject.toml\n", "")
    code, output, errors = call_here(folder, "new", "--update")
    assert (code, output, errors) == (0, "The project has the template of this litlab already.\n", "")


def test_conflicts_of_an_update_are_counted(tmp_path: Path, call_here: Call) -> None:
    call_here(tmp_path, "new", "own", "--litlab", URL)
    settings = tmp_path / "own" / "pyproject.toml"
    settings.write_text(settings.read_text().replace("v0.2.0", "main"))
    code, output, errors = call_here(tmp_path, "new", "--update", "own", "--litlab", URL.replace("v0.2.0", "v0.3.0"))
    assert (code, errors) == (0, "")
    assert output == (
        "updated  pyproject.toml  1 conflict\n"
        "Search for <<<<<<< and choose between the two sides, then run make test.\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the folder of the new project: litlab new myproject"),
        ([""], "name the folder of the new project: litlab new myproject"),
        (["3d"], "'3d' gives no name of a Python package: expected a name of the letters a to z, digits, spaces and"),
        (["torch"], "torch: the package would be torch, which is an installed package; choose another name"),
        (["a/b"], "{folder}/a: no such folder; create it first"),
        (["mine", "--litlab", "nowhere.whl"], "--litlab nowhere.whl: there is no such file, and it is neither a URL"),
        (["--update"], ".litlab-template.json: no such file; expected the folder of a project that litlab new made"),
    ],
)
def test_refusals_write_nothing(arguments: list[str], message: str, tmp_path: Path, call_here: Call) -> None:
    code, output, errors = call_here(tmp_path, "new", *arguments)
    assert (code, output) == (1, "")
    assert errors.startswith(f"litlab: {message.format(folder=tmp_path)}")
    assert list(tmp_path.iterdir()) == []
