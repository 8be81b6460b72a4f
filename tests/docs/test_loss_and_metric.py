"""The sections "Loss" and "Metric" of docs/extending.md, as a reader would follow them."""

from pathlib import Path
from typing import Any

import pytest
from support.runs import TINY, Command
from support.snippets import read_snippets

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metric_table
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

LOSS, METRIC = read_snippets("extending.md", "Loss"), read_snippets("extending.md", "Metric")


def trained(litlab: Command, tmp_path: Path, *arguments: str) -> tuple[RunDirectory, dict[str, Any]]:
    done = litlab(*arguments, *TINY, f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr) == (0, "")
    run = RunDirectory(tmp_path / "run")
    return run, read_result(run)


@pytest.mark.parametrize("number", range(len(LOSS.commands)))
def test_commands_of_the_section_on_losses(number: int, tmp_path: Path, litlab: Command) -> None:
    LOSS.write(tmp_path / "project")
    _, result = trained(litlab, tmp_path, *LOSS.commands[number])
    assert result["best"]["val/loss"] >= 0


def test_a_misspelt_argument_of_a_loss_is_refused(tmp_path: Path, litlab: Command) -> None:
    LOSS.write(tmp_path / "project")
    done = litlab("train", *TINY, "+task.loss={_target_: losses.LogitAdjusted, tauu: 0.5}")
    assert done.returncode == 1
    assert done.stderr == "litlab: task.loss.tauu: losses.LogitAdjusted takes no argument 'tauu'; did you mean tau\n"
    assert not (tmp_path / "project" / "outputs").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("+task.loss={_target_: my.mean, _partial_: true}", "task.loss: mean returned shape () for 2 images"),
        ("task.class_weights=[1,2]", "task.class_weights has 2 weights, but the data set has 10 classes"),
        (
            "+task.metrics.f1={_target_: torchmetrics.classification.MulticlassF1Score, average: none}",
            "task.metrics.f1: compute() returned a tensor of shape (10,), expected a single number",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_refused_and_leaves_no_run(
    override: str, message: str, tmp_path: Path, litlab: Command
) -> None:
    (tmp_path / "project" / "my.py").write_text("def mean(logits, labels):\n    return logits.mean()\n")
    done = litlab("train", *TINY, override)
    assert done.returncode == 1
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "project").glob("outputs/*/*"))


def test_commands_of_the_section_on_metrics(tmp_path: Path, litlab: Command) -> None:
    METRIC.write(tmp_path / "project")
    f1, worst = METRIC.commands
    _, result = trained(litlab, tmp_path, *f1)
    assert result["objective"] == result["best"]["val/f1"]
    assert 0 <= result["test"]["test/f1"] <= 1
    run, result = trained(litlab, tmp_path / "worst", *worst)
    assert 0 <= result["test"]["test/worst"] <= result["test"]["test/accuracy"]
    info = read_metric_table(run)["val/worst"]
    assert (info.unit, info.mode, info.bounds) == ("%", "max", (0.0, 1.0))
