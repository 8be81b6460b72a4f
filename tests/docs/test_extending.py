"""Sections of docs/extending.md on experiments, subclasses, networks and data, as a reader would follow them."""

from pathlib import Path

import pytest
from support.runs import Command
from support.snippets import Snippets, read_snippets

from litlab.config.config_file import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

EXPERIMENT = read_snippets("extending.md", "Experiment")
SUBCLASS = read_snippets("extending.md", "Subclass of our data module or task")
NETWORK = read_snippets("extending.md", "Network")
DATA = read_snippets("extending.md", "Data of any kind")
SHORT = ("trainer=cpu", "trainer.max_epochs=1", "threads=1")
SHAPES = ("data=shapes", "data.num_train=60", "data.num_test=20", "data.val_size=12", "data.batch_size=16", *SHORT)
CNN = ("model.widths=[2]", "model.hidden=[4]")


def accept(litlab: Command, directory: Path, *arguments: str) -> RunDirectory:
    """Train by a command that the page shows."""
    done = litlab(*arguments, f"hydra.run.dir={directory}")
    assert (done.stderr, done.returncode) == ("", 0)
    run = RunDirectory(directory)
    assert read_result(run)["status"] == "completed"
    return run


def refuse(litlab: Command, *arguments: str) -> str:
    """Call a command that the page calls refused, and return its message."""
    done = litlab(*arguments)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "project"


def test_an_experiment_and_a_computed_value(litlab: Command, project: Path, tmp_path: Path) -> None:
    EXPERIMENT.write(project)
    wide, computed = EXPERIMENT.commands
    run = accept(litlab, tmp_path / "wide", *wide, *SHAPES, "model.width=2")
    assert from_yaml(run.config.read_text())["optimizer"]["_target_"] == "torch.optim.AdamW"
    run = accept(litlab, tmp_path / "computed", *computed, *SHAPES, *CNN)
    assert from_yaml(run.config.read_text())["optimizer"]["lr"] == 16 * 0.0004


def test_subclasses_are_trained_and_checked(litlab: Command, project: Path, tmp_path: Path) -> None:
    SUBCLASS.write(project)
    good, *bad = SUBCLASS.commands
    run = accept(litlab, tmp_path / "run", *good, "data.num_images=120", "data.batch_size=16", *CNN, *SHORT)
    assert run.read_json(run.dataset)["class_names"] == ["across", "down"]
    value, key = (refuse(litlab, *arguments) for arguments in bad)
    assert "data.mixup=-1: expected" in value
    assert "task.l2: sparse.SparseClassifier takes no argument 'l2'" in key
    assert not (project / "outputs").exists()


@pytest.mark.parametrize("number", range(len(NETWORK.commands)))
def test_each_network_is_trained(number: int, litlab: Command, project: Path, tmp_path: Path) -> None:
    NETWORK.write(project)
    accept(litlab, tmp_path / "run", *NETWORK.commands[number], *SHAPES, "~logger", "~callbacks")


def test_a_network_for_another_number_of_classes_is_refused(litlab: Command, project: Path) -> None:
    for snippets in (NETWORK, SUBCLASS):
        snippets.write(project)
    message = refuse(
        litlab, "train", "data=stripes", "data.num_images=60", "~model", "+model._target_=nets.small_net_24", *SHORT,
        "name=x",
    )  # fmt: skip
    assert "one for each of the data set's 2 classes: let the network take num_classes" in message


def test_pairs_train_litlabs_task(litlab: Command, project: Path, tmp_path: Path) -> None:
    DATA.write(project)
    (pairs,) = (command for command in DATA.commands if "data=blobs" in command)
    run = accept(litlab, tmp_path / "run", *pairs, *CNN, *SHORT)
    assert set(read_result(run)["test"]) >= {"test/loss", "test/accuracy"}


def test_dictionaries_train_a_module_of_ones_own(litlab: Command, project: Path, tmp_path: Path) -> None:
    DATA.write(project)
    good, bad = (command for command in DATA.commands if "data=blobs" not in command)
    result = read_result(accept(litlab, tmp_path / "run", *good, *SHORT))
    assert (list(result["best"]), list(result["test"])) == (["val/loss"], ["test/loss"])
    assert "task.depth: words.Reader takes no argument 'depth'" in refuse(litlab, *bad)
    unused = refuse(litlab, "train", "data=words", "task=reader", "objective=null")
    assert unused.strip().endswith(": ~model ~optimizer ~schedule")


def test_the_page_shows_what_is_tested() -> None:
    assert [len(snippets.commands) for snippets in (SUBCLASS, NETWORK, DATA)] == [3, 6, 3]
    assert all(isinstance(snippets, Snippets) and snippets.files for snippets in (SUBCLASS, NETWORK, DATA))
