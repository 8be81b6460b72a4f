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


@pytest.mark.parametrize("arguments", [["train", "data=shapes"], ["train", "-m", "seed=0,1"], ["resume", "run"]])
@pytest.mark.parametrize(
    ("launcher", "variables"),
    [
        ("torchrun", {"RANK": "{}", "LOCAL_RANK": "{}", "WORLD_SIZE": "2"}),
        ("srun", {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "{}"}),
    ],
)
def test_several_tasks_of_one_command_are_refused_by_the_first(
    arguments: list[str],
    launcher: str,
    variables: dict[str, str],
    tmp_path: Path,
    call_here: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for rank in (0, 1):
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(rank))
        code, output, errors = call_here(tmp_path, *arguments)
        assert (code, output) == (1, "")
        expected = f"litlab: this command starts all its processes itself: run it once, without {launcher}; with "
        assert errors.startswith(expected) if rank == 0 else errors == ""
    assert list(tmp_path.iterdir()) == []


def test_windows_is_refused_in_a_sentence(tmp_path: Path, call_here: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    assert call_here(tmp_path, "status") == (1, "", "litlab: needs Linux or macOS; on Windows, run it in WSL 2\n")
