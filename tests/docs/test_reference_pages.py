"""Reference of the docs site: every command with its arguments, and a new one appears by itself."""

import importlib
import re
import sys
from argparse import ArgumentParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import reference_pages
from reference_pages import (
    MODULES,
    PYTHON,
    command_page,
    commands_page,
    group_page,
    markdown,
    paragraphs,
    python_group_page,
)

from litlab.cli import main as command_line
from litlab.cli.arguments import new_parser
from litlab.config.schema import GROUP_SECTIONS, TRAINER_DECIDED
from litlab.runs.directory import RunDirectory

DOCS = Path(__file__).parents[2] / "docs"
WITH_PARSERS = [name for name in command_line.COMMANDS if name != "train"]


@pytest.mark.parametrize("name", WITH_PARSERS)
def test_every_argument_of_a_command_is_described(name: str) -> None:
    page = command_page(name)
    parser: ArgumentParser = importlib.import_module(f"litlab.cli.{name}").make_parser()
    for action in parser._actions:
        if action.dest != "help":
            term = action.option_strings[-1] if action.option_strings else str(action.metavar or action.dest)
            assert re.search(rf"^`{re.escape(term)}[ `].*\n: \S", page, re.MULTILINE), term
    assert f"- [litlab {name}](commands/{name}.md): " in commands_page()


def test_train_has_its_own_help() -> None:
    page = command_page("train")
    assert "usage: litlab train [group=option] [key=value]" in page
    assert "optimizer: adamw, muon, sgd" in page


def test_a_new_command_appears(monkeypatch: pytest.MonkeyPatch) -> None:
    def make_parser() -> ArgumentParser:
        parser = new_parser(
            "hello", "Greet *a* <name>.", "Notes with `code`, and --watch.\n\nexamples:\n  litlab hello\n"
        )
        parser.add_argument("--loud", action="store_true", help="in capitals")
        return parser

    monkeypatch.setitem(sys.modules, "litlab.cli.hello", SimpleNamespace(make_parser=make_parser))
    monkeypatch.setattr(command_line, "COMMANDS", (*command_line.COMMANDS, "hello"))
    monkeypatch.setattr(command_line, "USAGE", command_line.USAGE + "  litlab hello NAME      greet somebody\n")
    monkeypatch.setattr(reference_pages, "config_groups", list)
    page = reference_pages.make_pages()["commands/hello"]
    assert "- [litlab hello](commands/hello.md): greet somebody" in commands_page()
    assert page.startswith("# litlab hello\n\nGreet \\*a\\* \\<name>.\n\n```text\nlitlab hello [-h] [--loud]\n```")
    assert "`--loud`\n: in capitals" in page
    assert "Notes with `code`, and `--watch`.\n\nexamples:\n\n```text\nlitlab hello\n```" in page


def test_a_group_has_its_options_keys_and_yaml() -> None:
    page = group_page("trainer")
    assert page.index("## `trainer=default`") < page.index("## `trainer=cpu`")
    assert "\n`trainer.max_epochs` integer ≥ 1, `-1` or `null`, default `10`\n: epochs after which" in page
    assert "Also the keys of [default](#trainer-default)." in page
    assert "\nstrategy: fsdp\n" in page
    assert all(f"`trainer.{name}`" in page for name in TRAINER_DECIDED)


def test_the_python_pages_have_the_classes_that_configs_name() -> None:
    for name, targets in PYTHON.items():
        page = python_group_page(name)
        for target in (*targets, *GROUP_SECTIONS.get(name, ())):
            assert (f":: {target}\n" in page) == target.startswith("litlab.")


def test_every_supported_name_is_documented() -> None:
    section = (DOCS / "stability.md").read_text().partition("\n## Python\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`litlab.+?) \|", section, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([\w.]+)`", row)]
    pages = "".join(python_group_page(name) for name in PYTHON)
    assert len(names) >= 10
    for name in names:
        module, _, last = name.rpartition(".")
        if module in MODULES:  # documented as a whole
            assert last in vars(importlib.import_module(module)), name
            name = module
        assert f":: {name}\n" in pages


def test_every_file_of_a_run_is_described() -> None:
    page = (DOCS / "run_directory.md").read_text()
    names = [entry.name for entry in vars(RunDirectory).values() if hasattr(entry, "name")]
    assert len(names) > 10
    assert [name for name in names if Path(name).name not in page] == []


def test_plain_text_is_escaped() -> None:
    assert markdown("a*b_c <d> [e] `*f*` --flag x--y {g}") == r"a\*b\_c \<d> \[e\] `*f*` `--flag` x--y \{g\}"


def test_indented_lines_are_code() -> None:
    text = ["One sentence", "of two lines.", "  code", "    indented", "and after it", "", "last"]
    blocks = list(paragraphs(text))
    assert blocks == ["One sentence of two lines.", "```text\ncode\n  indented\n```", "and after it", "last"]
