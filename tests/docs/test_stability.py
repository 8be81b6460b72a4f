"""The lists of docs/stability.md, compared with the code."""

import importlib
import re
from dataclasses import fields
from inspect import signature
from typing import Any

import pytest
from support.runs import compose_config
from support.snippets import DOCS

from litlab.cli.main import COMMANDS
from litlab.config.paths import packaged_conf
from litlab.config.tree import get
from litlab.errors import InUseError, UserError
from litlab.process.signals import STOP_SIGNALS, exit_code
from litlab.runs.directory import FORMAT, RunDirectory
from litlab.runs.result import Result, read_result
from litlab.sweep import study

PAGE = (DOCS / "stability.md").read_text()
HIDDEN_GROUPS = {"data/base", "hydra/help"}  # parts of other options; Hydra's own


def section(title: str) -> str:
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return text


def rows(title: str) -> list[tuple[list[str], str]]:
    """Return the names in the first column of the tables of a section, and the text of the second column."""
    cells = re.findall(r"^\| (`.*?) \| ?(.*?) ?\|$", section(title), re.MULTILINE)
    return [(re.findall(r"`([^`]+)`", first), second) for first, second in cells]


def find(dotted: str) -> Any:
    """Import the longest part of a dotted name that is a module, then take the attributes."""
    names = dotted.split(".")
    for end in range(len(names), 0, -1):
        try:
            found = importlib.import_module(".".join(names[:end]))
        except ModuleNotFoundError:
            continue
        for name in names[end:]:
            found = getattr(found, name)
        return found
    raise ModuleNotFoundError(dotted)


@pytest.mark.parametrize("name", [name for names, _ in rows("Python") for name in names])
def test_names_can_be_imported(name: str) -> None:
    assert find(name).__doc__


def test_the_package_exports_what_the_page_lists() -> None:
    import litlab

    listed = {name for names, _ in rows("Python") for name in names}
    assert {f"litlab.{name}" for name in litlab.__all__} <= listed


def test_a_predictor_has_what_the_page_lists() -> None:
    ((_, text),) = [row for row in rows("Python") if row[0] == ["litlab.inference.predictor.Predictor"]]
    predictor = find("litlab.inference.predictor.Predictor")
    listed = set(re.findall(r"`([^`]+)`", text)) - {"litlab.load"}
    assert listed <= {*dir(predictor), *signature(predictor).parameters}


def test_commands_and_exit_codes() -> None:
    first, _ = section("Commands").split("\n\n", 2)[0:2]
    assert set(re.findall(r"`(?:litlab )?([a-z]+)`", first)) == set(COMMANDS)
    codes = {0, UserError.exit_code, InUseError.exit_code, *map(exit_code, STOP_SIGNALS)}
    assert {int(name) for names, _ in rows("Commands") for name in names} == codes


def test_keys_and_groups() -> None:
    config, missing = compose_config(), object()
    keys = [key for names, _ in rows("Config keys") for key in names]
    assert "optimizer.lr" in keys
    assert [key for key in keys if get(config, key, missing) is missing] == []
    conf = packaged_conf()
    folders = {path.parent.relative_to(conf).as_posix() for path in conf.rglob("*.yaml")} - {"."} - HIDDEN_GROUPS
    (listed,) = re.findall(r"^The groups are (.*?)\. ", section("Config keys"), re.DOTALL | re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", listed)) == folders


def test_files(tiny_run: RunDirectory) -> None:
    table = {name: text for names, text in rows("Files") for name in names}
    written = set(table) - {tiny_run.log.name}  # which the worker writes, and this run had none
    assert [name for name in written if not (tiny_run.path / name).exists()] == []
    listed = set(re.findall(r"`(\w+)`", table["result.json"]))
    assert listed <= set(read_result(tiny_run)) == {field.name for field in fields(Result)}
    (columns,) = re.findall(r"`([^`]+)`", table["metrics.csv"])
    assert tiny_run.metrics.read_text().splitlines()[0] == columns
    assert f"`format: {FORMAT}`" in table["config.yaml"]
    assert f"`format: {read_result(tiny_run)['format']}`" in table["result.json"]
    assert f"`study.yaml` with `format: {study._FORMAT}`" in section("Files")
