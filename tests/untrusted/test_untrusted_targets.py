"""Hostile targets in untrusted runs are refused; each is shown to execute in the user's own run."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.hostile import NAMES, OTHERS, Node, change, plant, touching
from support.runs import Command

import litlab
from litlab.cli import evaluate, export
from litlab.config.tree import put
from litlab.config.trust import trusted_config
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.signature import sign


@pytest.mark.parametrize("name", NAMES)
def test_hostile_targets_execute_only_in_the_users_own_run(name: str, run: Path, mark: Path) -> None:
    for folder in (Path.cwd(), run, run.parent):
        plant(folder, mark)
    change(run, model=touching(mark, run)[name])
    with pytest.raises(UserError, match=r"is untrusted \(it is not signed\)(.|\n)*model\S*_target_") as refused:
        litlab.load(run)
    assert not mark.exists()
    assert "Error" not in str(refused.value)
    sign(RunDirectory(run))
    with contextlib.suppress(Exception):  # what it builds is no network
        litlab.load(run)
    assert mark.exists(), "harmless: the test shows nothing"


@pytest.mark.parametrize("target", OTHERS)
def test_other_targets_are_refused(target: Any, run: Path) -> None:
    change(run, model={"_target_": "torch.nn.Sequential", "_args_": [{"_target_": target}]})
    with pytest.raises(UserError, match=r"model\._args_\.0\._target_"):
        litlab.load(run)


# Keys that a node has there besides its target.
OTHER_KEYS: dict[str, Node] = {
    "optimizer": {"_partial_": True},
    "schedule": {"_partial_": True},
    "trainer": {"accelerator": "cpu", "devices": 1, "num_nodes": 1},
}


@pytest.mark.parametrize("place", ["data", "task", "optimizer", "schedule", "trainer", "trainer.strategy"])
@pytest.mark.parametrize("name", ["a shell", "torch's shell", "lightning's os", "a class of theirs"])
def test_evaluating_executes_nothing_from_any_place(name: str, place: str, whole: RunDirectory, mark: Path) -> None:
    plant(Path.cwd(), mark)
    config = yaml.safe_load(whole.config.read_text())
    put(config, place, touching(mark, Path.cwd())[name] | OTHER_KEYS.get(place, {}))
    change(whole.path, **config)
    with pytest.raises(UserError, match=rf"{place}\._target_"):
        evaluate.main([str(whole.path)])
    with pytest.raises(UserError, match=rf"{place}\._target_"):
        trusted_config(whole, yaml.safe_load(whole.config.read_text()))
    assert not mark.exists()


def test_commands_refuse_with_a_message(run: Path, mark: Path, litlab: Command, tmp_path: Path) -> None:
    project = tmp_path / "project"  # where the command is called
    for folder in (project, project / "src", run, run.parent):
        plant(folder, mark)
    change(run, model={"_target_": "theirs.Net"})
    done = litlab("predict", str(run), "--images", str(run))
    assert done.returncode == 1
    (run / "image.png").touch()
    done = litlab("predict", str(run), "--images", str(run))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"litlab: {run} is untrusted (it is not signed), so it was not opened:")
    assert "if you have read its code and trust it with your machine: --allow theirs.Net" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(UserError, match=r"model\._target_"):
        export.main([str(run), "--format", "pt2"])
    assert not mark.exists()
    assert not (run / "network.pt2").exists()


@pytest.mark.parametrize(("key", "in_list"), [("bit_depth", False), ("mean", True), ("class_names", True)])
def test_a_description_of_data_executes_nothing(key: str, in_list: bool, whole: RunDirectory, mark: Path) -> None:
    """An evaluation takes settings from it, and they become arguments of the data module."""
    node = touching(mark, Path.cwd())["a shell"]
    value = [node, *whole.read_json(whole.dataset)[key][1:]] if in_list else node
    write_json(whole.dataset, whole.read_json(whole.dataset) | {key: value})
    with pytest.raises(UserError, match=rf"dataset\.json is damaged: it does not describe a data set \({key}"):
        evaluate.main([str(whole.path)])
    assert not mark.exists()
