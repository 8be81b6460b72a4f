"""The projects of docs/examples/, each from a fresh copy, by the commands of its README."""

import re
import shlex
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from support.exact_resume import differences, outcome
from support.runs import Command

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
# In the copy of a project: sends the signal of a scheduler before a step of the optimizer.
STOP = """
import os
import signal

from lightning.pytorch import Callback


class Stop(Callback):
    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.global_step == int(os.environ.get("STOP_AT", "-1")):
            os.kill(os.getpid(), signal.SIGTERM)
"""
ALWAYS = ("+callbacks.stop._target_=stop.Stop", "threads=1", "trainer=cpu", "trainer.log_every_n_steps=1")


def write_mnist(project: Path) -> None:
    """Write random digits in the format of MNIST, where torchvision expects them."""
    folder, random = project / "data" / "MNIST" / "raw", np.random.default_rng(0)
    folder.mkdir(parents=True)
    for split, num_images in (("train", 64), ("t10k", 16)):
        images = random.integers(0, 256, (num_images, 28, 28), dtype=np.uint8)
        header = struct.pack(">4i", 0x803, num_images, 28, 28)
        (folder / f"{split}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        labels = (np.arange(num_images) % 10).astype(np.uint8)
        header = struct.pack(">2i", 0x801, num_images)
        (folder / f"{split}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())


class Example(NamedTuple):
    """Example with what makes its commands short.

    Attributes:
        name: Folder.
        overrides: Overrides of all its runs.
        stop_at: Steps after which a run is stopped.
        prepare: Writes data into the project that a user would download.
    """

    name: str
    overrides: tuple[str, ...]
    stop_at: int
    prepare: Callable[[Path], None] = lambda project: None


LISTED = (
    pytest.param(
        Example("reinforce", ("data.num_train=8", "data.batch_size=4", "data.num_evaluation=2"), 3),
        marks=pytest.mark.integrations,
    ),
    Example("template", ("data.train_val_test_split=[48,16,16]", "data.batch_size=16"), 4, write_mnist),
)


def test_every_example_is_listed() -> None:
    names = {param.values[0].name if hasattr(param, "values") else param.name for param in LISTED}
    assert names == {path.name for path in EXAMPLES.iterdir() if path.is_dir()}


@pytest.mark.parametrize("example", LISTED, ids=lambda example: example.name)
def test_an_example(example: Example, tmp_path: Path, litlab: Command) -> None:
    """Follow the README with small runs; then stop and resume the first of them."""
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / example.name, project, dirs_exist_ok=True)
    (project / "stop.py").write_text(STOP)
    example.prepare(project)
    short = (*ALWAYS, "trainer.max_epochs=2", *example.overrides)
    commands = re.findall(r"^    litlab (.+)$", (project / "README.md").read_text(), re.MULTILINE)
    trained = [shlex.split(command) for command in commands if command.startswith("train")]
    for command in map(shlex.split, commands):
        done = litlab(*command, *(short if command in trained else ()))
        assert (done.returncode, done.stderr) == (0, ""), command

    first = [override for override in trained[0] if not override.startswith("hydra.run.dir=")]
    whole, stopped = (RunDirectory(tmp_path / name) for name in ("whole", "stopped"))
    assert litlab(*first, *short, f"hydra.run.dir={whole.path}").returncode == 0
    done = litlab(*first, *short, f"hydra.run.dir={stopped.path}", STOP_AT=str(example.stop_at))
    assert done.returncode == 143, done.stderr
    assert not stopped.result.exists() or read_result(stopped)["status"] == "interrupted"
    done = litlab("resume", str(stopped.path))
    assert (done.returncode, done.stderr) == (0, "")
    assert differences(outcome(whole), outcome(stopped)) == []
