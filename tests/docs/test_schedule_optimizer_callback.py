"""The sections "Schedule", "Optimizer" and "Callback" of docs/extending.md."""

from pathlib import Path

import pytest
from support.runs import TINY, Command
from support.snippets import read_snippets

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

SECTIONS = {title: read_snippets("extending.md", title) for title in ("Schedule", "Optimizer", "Callback")}


@pytest.mark.parametrize(
    ("title", "number"),
    [(title, number) for title, section in SECTIONS.items() for number in range(len(section.commands))],
)
def test_each_command_trains(title: str, number: int, tmp_path: Path, litlab: Command) -> None:
    project, (command, *arguments) = tmp_path / "project", SECTIONS[title].commands[number]
    SECTIONS[title].write(project)
    if command == "compare":  # the study of the command before it
        done = litlab(*SECTIONS[title].commands[number - 1], *TINY)
        assert done.returncode == 0, done.stderr
    done = litlab(command, *arguments, *(TINY if command == "train" else ()))
    assert (done.returncode, done.stderr) == (0, "")
    runs = [RunDirectory(path.parent) for path in project.glob("outputs/**/checkpoints")]
    assert runs
    assert {read_result(run)["status"] for run in runs} == {"completed"}


def test_the_budget_of_the_example_ends_the_training(tmp_path: Path, litlab: Command) -> None:
    SECTIONS["Callback"].write(tmp_path / "project")
    run = RunDirectory(tmp_path / "run")
    done = litlab("train", *TINY, "callbacks=budget", "trainer.max_epochs=9", f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert read_result(run)["stop_reason"] == "stopped at epoch 2 by LossBudget"
    assert "note: stopped at epoch 2 by LossBudget\n" in done.stdout
