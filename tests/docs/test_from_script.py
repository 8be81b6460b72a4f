"""docs/from_script.md, as a reader would follow it: the script, then the same by litlab."""

import os
from pathlib import Path

import pytest
from support.published import write_mnist
from support.runs import Command
from support.snippets import read_snippets
from support.warm import run_warm

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

TITLES = ("Before", "After: an image classifier", "After: a loop of your own")
BEFORE, CLASSIFIER, LOOP = (read_snippets("from_script.md", title) for title in TITLES)
SMALL = ("trainer=cpu", "threads=1", "trainer.max_epochs=1", "data.batch_size=8")


def test_the_page(litlab: Command, tmp_path: Path) -> None:
    project = tmp_path / "project"
    BEFORE.write(project)
    write_mnist(project / "mnist")
    environment = os.environ | {"PYTHONPATH": str(project)}
    done = run_warm(["train", "--epochs", "1"], project, timeout=100, environment=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("epoch 0: test accuracy ")

    (project / "train.py").unlink()
    CLASSIFIER.write(project)
    LOOP.write(project)
    train, multirun = CLASSIFIER.commands
    own = ("data.root=mnist", "init_from=mnist.pt")  # of the script: all of its weights fit
    done = litlab(*train, *SMALL, *own, "model.width=16", f"hydra.run.dir={tmp_path / 'classifier'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert "6 of 6 tensors" in done.stdout
    done = litlab(*multirun, *SMALL, "data.root=mnist")
    assert done.returncode == 0, done.stderr
    (loop,) = LOOP.commands
    done = litlab(*loop, *SMALL, "data.num_val=8", f"hydra.run.dir={tmp_path / 'loop'}")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("classifier", "loop"):
        result = read_result(RunDirectory(tmp_path / name))
        assert result["status"] == "completed"
        assert "val/accuracy" in result["best"]
        assert "test/accuracy" in result["test"]
