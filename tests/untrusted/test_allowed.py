"""What a run of somebody else's may do, by itself and with packages that the user allows."""

import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from support.hostile import change, plant
from support.saved_run import CLASS_NAMES, make_facts, make_run
from torch import nn

import litlab
from litlab.cli import evaluate
from litlab.config.trust import allowed_packages
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.runs.directory import RunDirectory
from litlab.training.allowlist import trusted


def test_allowing_a_package_allows_it_and_no_other(run: Path, mark: Path) -> None:
    plant(Path.cwd(), mark)
    (Path.cwd() / "unasked.py").write_text("")
    (run / "checkpoints" / "last.ckpt").unlink()
    for target in ("theirs.Net", "theirs.make"):
        change(run, model={"_target_": target})
        with pytest.raises(UserError, match="--allow theirs"):
            litlab.load(run, allow=["another"])
    assert not mark.exists()
    finished = FinishedRun.open(run, ["theirs"], parts=["model"])
    assert finished.settings("model") == {"model": {"_target_": "theirs.make"}}
    assert mark.exists()
    assert not finished.own
    with pytest.raises(ModuleNotFoundError):
        import unasked  # noqa: F401  # lies beside it
    change(run, model={"_target_": "theirs.nn.Linear"})
    FinishedRun.open(run, ["theirs"], parts=["model"]).settings("model")
    change(run, model={"_target_": "theirs.Path.touch"})
    with pytest.raises(UserError, match="is a function of pathlib"):
        FinishedRun.open(run, ["theirs"], parts=["model"]).settings("model")


def test_a_network_of_an_allowed_package_by_argument_or_environment(run: Path, mark: Path) -> None:
    plant(Path.cwd(), mark)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 20 * 20, 3))
    shutil.rmtree(run)
    make_run(run, network, {"_target_": "theirs.Net"}, make_facts())
    assert litlab.load(run, allow="theirs").class_names == CLASS_NAMES
    os.environ["LITLAB_ALLOW"] = "another, theirs"
    assert litlab.load(run).class_names == CLASS_NAMES


@pytest.mark.parametrize("name", ["os", "subprocess", "builtins", "hydra.utils", "a b", "../x", "", "1x"])
def test_what_cannot_be_allowed(name: str) -> None:
    with pytest.raises(UserError, match="--allow"):
        allowed_packages([name])


def test_an_ordinary_run_of_others_is_used_as_ones_own(whole: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    change(
        whole.path,
        optimizer={"_target_": "torch.optim.Adam", "lr": 0.1},
        schedule={"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3},
        callbacks={"stop": {"_target_": "lightning.pytorch.callbacks.EarlyStopping", "monitor": "val/loss"}},
        logger={"rows": {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "rows"}},
    )
    frozen = yaml.safe_load(whole.config.read_text())
    frozen["trainer"]["strategy"] = {"_target_": "lightning.pytorch.strategies.DDPStrategy", "static_graph": True}
    change(whole.path, **frozen)
    assert trusted(whole, frozen) == frozen
    frozen["trainer"]["strategy"] = "auto"
    change(whole.path, **frozen)
    evaluate.main([str(whole.path)])
    assert "test/accuracy" in capsys.readouterr().out


def test_a_network_of_nested_modules(tmp_path: Path) -> None:
    node = {
        "_target_": "torch.nn.Sequential",
        "_args_": [
            {"_target_": "torch.nn.Flatten"},
            {"_target_": "torch.nn.Linear", "in_features": 1200, "out_features": 3},
        ],
    }
    network = nn.Sequential(nn.Flatten(), nn.Linear(1200, 3))
    run = make_run(tmp_path / "nested", network, node, make_facts())
    images = torch.zeros(2, 3, 20, 20, dtype=torch.uint8)
    predictor = litlab.load(run)
    assert torch.equal(predictor(images), network(predictor.preprocess(images)).softmax(dim=1))


def test_only_what_is_used_is_judged(run: Path, mark: Path) -> None:
    """Logger, data and Trainer of the run are of packages that are not here; a network needs none of them."""
    assert litlab.load(run).class_names == CLASS_NAMES
    with pytest.raises(UserError, match=r"data\._target_(.|\n)*logger\.remote\._target_"):
        FinishedRun.open(run)
