"""docs/from_lightning.md, as a reader would follow it: the script, then the same by litlab."""

import os
import re
from pathlib import Path

import pytest
from support.runs import Command
from support.snippets import read_snippets
from support.warm import run_warm

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

BEFORE, AFTER = (read_snippets("from_lightning.md", title) for title in ("Before", "After"))
FEW_POINTS = ("data.num_points=300", "trainer.max_epochs=12", "trainer=cpu", "threads=1")


def test_the_page(litlab: Command, tmp_path: Path) -> None:
    project = tmp_path / "project"
    BEFORE.write(project)
    done = run_warm(
        ["train", "--epochs", "12"], project, timeout=100, environment=os.environ | {"PYTHONPATH": str(project)}
    )
    assert done.returncode == 0, done.stderr
    (accuracy,) = re.findall(r"test/accuracy\W+([\d.]+)", done.stdout)
    assert float(accuracy) > 0.9

    (project / "train.py").unlink()
    AFTER.write(project)
    train, multirun, compare = AFTER.commands
    done = litlab(*train, "trainer=cpu", "threads=1", "trainer.max_epochs=12", f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_result(RunDirectory(tmp_path / "run"))["test"]["test/accuracy"] > 0.9
    done = litlab(*multirun, *FEW_POINTS)
    assert done.returncode == 0, done.stderr
    done = litlab(*compare)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^0.003 +3 ", done.stdout, re.MULTILINE)
