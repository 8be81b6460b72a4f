"""The sections "LightningModule" and "Logger" of docs/extending.md, as a reader would follow them."""

from pathlib import Path

import pytest
from support.runs import TINY_WITH_PICTURES, Command
from support.snippets import read_snippets

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations


def test_a_lightning_module(tmp_path: Path, litlab: Command) -> None:
    snippets = read_snippets("extending.md", "LightningModule")
    snippets.write(tmp_path / "project")
    train, compare, refused = snippets.commands
    done = litlab(*train, "trainer=cpu", "trainer.max_epochs=3", "threads=1")
    assert done.returncode == 0, done.stderr
    runs = [RunDirectory(path) for path in sorted((tmp_path / "project" / "outputs" / "lines").glob("000*"))]
    assert len(runs) == 4
    for run in runs:
        assert list(read_result(run)["best"]) == ["loss"]
        assert {row.metric for row in read_metrics(run.metrics)} >= {"loss", "train/loss"}
    done = litlab(*compare)
    assert done.returncode == 0
    assert "2 seeds" in done.stdout or " 2 " in done.stdout
    done = litlab(*refused)
    assert done.returncode == 1
    assert "task.rate: my_task.LineFit takes no argument 'rate'" in done.stderr


def test_a_logger(tmp_path: Path, litlab: Command) -> None:
    snippets = read_snippets("extending.md", "Logger")
    snippets.write(tmp_path / "project")
    (train,) = snippets.commands
    run = RunDirectory(tmp_path / "run")
    done = litlab(*train, *TINY_WITH_PICTURES, f"hydra.run.dir={run.path}")
    assert (done.returncode, done.stderr) == (0, "")
    lines = (run.path / "diary.txt").read_text().splitlines()
    assert lines[0] == "Hello, lr is 0.05"
    assert any("train/images of" in line for line in lines)
    assert lines[-1] == f"completed: {read_result(run)['test']['test/accuracy']:.3f}"
    assert list(run.path.glob("events.*"))
