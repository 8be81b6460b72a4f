"""The sections "Schedule", "Optimizer" and "Callback" of docs/extending.md, and their rows in its first table."""

from pathlib import Path

import pytest
from support.killed_run import add_kill
from support.runs import TINY, Command
from support.snippets import read_snippets

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

SECTIONS = {title: read_snippets("extending.md", title) for title in ("Schedule", "Optimizer", "Callback")}
SMALL = (*TINY, "data.num_train=88", "checkpoint.every_steps=2", "trainer.max_epochs=3")
# Row -> the settings of the section, a wrong one, and its refusal.
ROWS = {
    "Schedule": (
        ["schedule=staircase"],
        "schedule.intervall=epoch",
        "schedule.intervall: unknown key; did you mean schedule.interval?",
    ),
    "Optimizer": (
        ["optimizer=sign", "schedule=constant"],
        "+optimizer.momentun=0.9",
        "optimizer.momentun: mysgd.SignSGD takes no argument 'momentun'",
    ),
    "Callback": (
        ["callbacks=budget", "schedule=constant"],
        "+callbacks.budget.bugdet=1",
        "callbacks.budget.bugdet: mycallbacks.LossBudget takes no argument 'bugdet'; did you mean budget",
    ),
}


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


@pytest.mark.parametrize("title", ROWS)
def test_each_row_of_the_table_holds(title: str, tmp_path: Path, litlab: Command) -> None:
    project, (settings, wrong, message) = tmp_path / "project", ROWS[title]
    SECTIONS[title].write(project)
    refused = litlab("train", *SMALL, *settings, wrong)
    assert refused.returncode == 1
    assert refused.stderr.startswith(f"litlab: {message}"), refused.stderr
    assert not (project / "outputs").exists()

    done = litlab("train", "-m", *SMALL, *settings, "seed=0,1", "study.name=row")
    assert done.returncode == 0, done.stderr
    whole, other = (RunDirectory(path) for path in sorted((project / "outputs" / "row").glob("000*")))
    assert whole.best.exists()
    assert read_result(whole)["objective"] == read_result(whole)["best"]["val/accuracy"]
    assert read_result(whole)["weights"] != read_result(other)["weights"]
    assert list(whole.path.glob("events.out.tfevents.*"))
    compared = litlab("compare", "outputs/row", "--format", "csv")
    assert compared.returncode == 0, compared.stderr

    run = RunDirectory(tmp_path / "killed")
    arguments = ("train", *SMALL, *settings, add_kill(project), f"hydra.run.dir={run.path}")
    killed = litlab(*arguments, KILL_AT_BATCH="5")
    assert "SIGKILL" in killed.stderr, killed.stderr
    assert run.last.exists()
    resumed = litlab("resume", str(run.path))
    assert resumed.returncode == 0, resumed.stderr
    for key in ("weights", "best", "last", "test", "stop_reason"):
        assert read_result(run)[key] == read_result(whole)[key]
    rows = [[row for row in read_metrics(each.metrics) if row.metric[:10] != "throughput"] for each in (run, whole)]
    assert rows[0] == rows[1]


def test_the_budget_of_the_example_ends_the_training(tmp_path: Path, litlab: Command) -> None:
    SECTIONS["Callback"].write(tmp_path / "project")
    run = RunDirectory(tmp_path / "run")
    done = litlab("train", *TINY, "callbacks=budget", "trainer.max_epochs=9", f"hydra.run.dir={run.path}")
    assert done.returncode == 0, done.stderr
    assert read_result(run)["stop_reason"] == "stopped at epoch 2 by LossBudget"
    assert "note: stopped at epoch 2 by LossBudget\n" in done.stdout
