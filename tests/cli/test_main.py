"""Dispatch of `litlab` to its commands: help, unknown commands, exit codes."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from litlab.cli.main import COMMANDS

Call = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "train"])
def test_help_of_each_command(command: str, tmp_path: Path, call_here: Call) -> None:
    code, output, errors = call_here(tmp_path, command, "--help")
    assert (code, errors) == (0, "")
    assert output.startswith(f"usage: litlab {command} ")
    assert output.endswith(import_module(f"litlab.cli.{command}").NOTES)


def test_an_unknown_command_is_refused_with_the_nearest(tmp_path: Path, call_here: Call) -> None:
    assert call_here(tmp_path, "trian") == (1, "", "litlab: trian: unknown command; did you mean train?\n")
