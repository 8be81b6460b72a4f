"""The projects of docs/examples/, each from a fresh copy, by the commands of its README."""

import math
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
from support.images import write_folder
from support.runs import Command

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus, read_state

pytestmark = pytest.mark.integrations

COMMAND = re.compile(r"^    litlab (.+)$", re.MULTILINE)
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
SHAPES = ("data.num_train=48", "data.num_test=16", "data.val_size=16")
NARROW = ("data.batch_size=16", "model.width=2")
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
        overrides: Overrides of the runs by each of its commands; those of the last are those of all further ones.
        stop_at: Steps after which a run is stopped.
        resumed: Number of the command whose run is stopped and resumed.
        strategy: Strategy of Lightning that it needs on several devices.
        prepare: Writes data into the project that a user would download.
    """

    name: str
    overrides: tuple[tuple[str, ...], ...]
    stop_at: int
    prepare: Callable[[Path], None] = lambda project: None
    resumed: int = 0
    strategy: str = "ddp"


LISTED = (
    Example("reinforce", (("data.num_train=8", "data.batch_size=4", "data.num_evaluation=2"),), 3),
    Example("template", (("data.train_val_test_split=[48,16,16]", "data.batch_size=16"),), 4, write_mnist),
    Example("self_supervised", ((*SHAPES, *NARROW),), 3),
    Example("lstm", ((*SHAPES, "data.batch_size=16", "model.hidden=8"),), 3),
    Example(
        "gan",
        ((*SHAPES, "data.batch_size=16", "task.generator.width=2", "task.discriminator.width=2"),),
        6,
        strategy="ddp_find_unused_parameters_true",
    ),
    Example(
        "fine_tuning",
        ((*SHAPES, *NARROW), (*NARROW, "trainer.max_epochs=3")),
        5,
        lambda project: write_folder(project / "animals", num_train=10, num_test=2),
        resumed=1,
    ),
    Example(
        "low_light",
        (("data=shapes", *SHAPES, "callbacks.gate_stages.gate_epoch=1"), ("data=shapes", *SHAPES, "seed=0,1")),
        1,
    ),
)


def warnings(stderr: str) -> list[str]:
    """Return the lines that are no notes of litlab on data or study."""
    return [line for line in stderr.splitlines() if not line.startswith("litlab: ")]


def test_every_example_is_listed() -> None:
    names = {example.name for example in LISTED}
    assert names == {path.name for path in EXAMPLES.iterdir() if path.is_dir()}


@pytest.mark.parametrize("example", LISTED, ids=lambda example: example.name)
def test_an_example(example: Example, tmp_path: Path, litlab: Command) -> None:
    """Follow the README with small runs; then stop and resume one of them."""
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / example.name, project, dirs_exist_ok=True)
    (project / "stop.py").write_text(STOP)
    example.prepare(project)
    commands = [shlex.split(command) for command in COMMAND.findall((project / "README.md").read_text())]
    trained = []
    for command in commands:
        if command[0] == "train":
            own = example.overrides[min(len(trained), len(example.overrides) - 1)]
            command = [*command, *ALWAYS, "trainer.max_epochs=2", *own]
            trained.append(command)
        done = litlab(*command)
        assert (done.returncode, warnings(done.stderr)) == (0, []), command

    whole, stopped = (RunDirectory(tmp_path / name) for name in ("whole", "stopped"))
    command = [override for override in trained[example.resumed] if not override.startswith("hydra.run.dir=")]
    done = litlab(*command, f"hydra.run.dir={whole.path}")
    assert (done.returncode, warnings(done.stderr)) == (0, [])
    done = litlab(*command, f"hydra.run.dir={stopped.path}", STOP_AT=str(example.stop_at))
    assert done.returncode == 143, done.stderr
    assert read_state(stopped).status == RunStatus.INTERRUPTED
    done = litlab("resume", str(stopped.path))
    assert (done.returncode, warnings(done.stderr)) == (0, [])
    assert differences(outcome(whole), outcome(stopped)) == []


@pytest.mark.parametrize(
    "example", [example for example in LISTED if example.name != "reinforce"], ids=lambda example: example.name
)
def test_an_example_on_two_ranks(example: Example, tmp_path: Path, litlab: Command) -> None:
    project = tmp_path / "project"
    shutil.copytree(EXAMPLES / example.name, project, dirs_exist_ok=True)
    (project / "stop.py").write_text(STOP)
    example.prepare(project)
    command = next(iter(COMMAND.findall((project / "README.md").read_text())))
    where = ("trainer.devices=2", f"trainer.strategy={example.strategy}", f"hydra.run.dir={tmp_path / 'run'}")
    done = litlab(*shlex.split(command), *ALWAYS, *example.overrides[0], "trainer.max_epochs=1", *where)
    assert done.returncode == 0, done.stderr
    result = read_result(RunDirectory(tmp_path / "run"))
    assert (result["status"], result["epochs"]) == ("completed", 1)
    assert all(math.isfinite(value) for value in result["test"].values())
    assert result["test"]
