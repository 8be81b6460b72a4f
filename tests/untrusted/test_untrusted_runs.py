"""Untrusted runs read no environment variables, write no files elsewhere, and are checked by workers, too."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml
from support.hostile import Node, change, plant
from support.images import FOLDERS
from support.saved_run import CLASS_NAMES
from support.warm import run_warm

import litlab
from litlab.config.trust import Trust, trusted_config
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import sign


def test_environment_variables_are_not_filled_in(run: Path) -> None:
    os.environ["CANARY"] = "sing"
    for node in (
        {"_target_": "torch.nn.Linear", "in_features": "${oc.env:CANARY}"},
        {"_target_": "torch.nn.Linear", "x": [{"y": "a${oc.env:HOME}b"}]},
        {"_target_": "torch.nn.Linear", "${oc.env:CANARY}": 1},
        {"_target_": "torch.nn.Linear", "in_features": "${oc.decode:5}"},
    ):
        change(run, model=node)
        with pytest.raises(UserError, match="would be filled in from your environment") as refused:
            litlab.load(run)
        assert "sing" not in str(refused.value)


def test_initial_weights_without_a_hash_are_refused(whole: RunDirectory) -> None:
    """Not by an untrusted run alone: config.yaml may be edited by hand."""
    change(whole.path, init_from="some\x1b.ckpt")
    for trusted in (False, True):
        if trusted:
            sign(whole)
        done = work(whole)
        assert done.returncode == 1
        assert "init_from='some\\x1b.ckpt': expected null, or the keys path and sha256" in done.stderr
        assert "Traceback" not in done.stderr


def test_control_characters_are_not_printed(run: Path) -> None:
    change(run, model={"_target_": "torch.nn.Linear", "\x1b[2J": "${x}"})
    with pytest.raises(UserError) as refused:
        litlab.load(run)
    assert "model.?[2J: '${x}'" in str(refused.value)


def test_caches_are_those_of_the_user(whole: RunDirectory) -> None:
    node = yaml.safe_load(whole.config.read_text())["data"]
    kept = {key: value for key, value in node.items() if key not in ("num_train", "num_test", "data_seed")}
    folder = {"_target_": "litlab.data.image_folder.ImageFolder", "root": "/r", "cache": "/etc", "image_size": 32}
    folder |= {"storage": "memory", "num_workers": 0, "folders": FOLDERS, "classes": None, "encoding": None}
    folder |= {"test_size": 0.2, "test_seed": 0, "bit_depth": None, "skip_unreadable": False, "resize": "squash"}
    change(whole.path, data=kept | folder)
    assert FinishedRun.open(whole.path).select_settings("data")["data"]["cache"] == os.environ["LITLAB_CACHE"]
    sign(whole)
    assert FinishedRun.open(whole.path).select_settings("data")["data"]["cache"] == "/etc"


def test_torchvision_downloads_into_the_cache_of_the_user(whole: RunDirectory) -> None:
    """It would unpack archives into any folder that the run names."""
    node = yaml.safe_load(whole.config.read_text())["data"]
    kept = {key: value for key, value in node.items() if key not in ("num_train", "num_test", "data_seed")}
    digits = {"_target_": "litlab.data.torchvision.Torchvision", "name": "MNIST", "root": "/etc", "cache": "/etc"}
    digits |= {"variant": None, "image_size": None, "resize": "squash", "test_size": 0.2, "test_seed": 0}
    change(whole.path, data=kept | digits)
    data = FinishedRun.open(whole.path).select_settings("data")["data"]
    assert data["root"] == f"{os.environ['LITLAB_CACHE']}/torchvision/MNIST"
    sign(whole)
    assert FinishedRun.open(whole.path).select_settings("data")["data"]["root"] == "/etc"


@pytest.mark.parametrize(
    ("group", "node"),
    [
        ("callbacks", {"_target_": "lightning.pytorch.callbacks.ModelCheckpoint"}),  # deletes what its state names
        ("callbacks", {"_target_": "lightning.pytorch.callbacks.SpikeDetection", "exclude_batches_path": "x"}),
        ("logger", {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "a/../../b"}),
        ("logger", {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "s3://theirs"}),
        ("logger", {"_target_": "lightning.pytorch.loggers.CSVLogger", "name": "/etc"}),
        ("logger", {"_target_": "lightning.pytorch.loggers.TensorBoardLogger", "sub_dir": "$HOME"}),
        ("logger", {"_target_": "lightning.pytorch.loggers.WandbLogger"}),
    ],
)
def test_callbacks_and_loggers_write_into_the_run_and_talk_to_nobody(
    group: str, node: Node, whole: RunDirectory
) -> None:
    change(whole.path, **{group: {"x": node}})
    with pytest.raises(UserError, match=rf"{group}\.x\."):
        trusted_config(whole, yaml.safe_load(whole.config.read_text()))


def test_links_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (run / "run.log").symlink_to(tmp_path / "precious")
    for _ in range(2):
        with pytest.raises(UserError, match=r"run\.log is a link"):
            litlab.load(run)
        sign(RunDirectory(run))  # one's own run may have been published, and come back changed
    (run / "run.log").unlink()
    (run / "checkpoints").rename(tmp_path / "scratch")
    (run / "checkpoints").symlink_to(tmp_path / "scratch")
    assert litlab.load(run).class_names == CLASS_NAMES
    (run / ".signature").unlink()
    with pytest.raises(UserError, match="checkpoints is a link"):
        litlab.load(run)


def test_a_worker_refuses_a_config_that_changed_meanwhile(whole: RunDirectory) -> None:
    frozen = yaml.safe_load(whole.config.read_text())
    with pytest.raises(UserError, match="was changed while"):
        trusted_config(whole, frozen | {"seed": 99})
    change(whole.path, model={"_target_": "theirs.Net", "x": float("nan")})
    sign(whole)
    assert trusted_config(whole, yaml.safe_load(whole.config.read_text()))["model"]["_target_"] == "theirs.Net"
    assert Trust.of(whole, whole.config.read_bytes()).own


def work(run: RunDirectory, **environment: str) -> "subprocess.CompletedProcess[str]":
    run.result.unlink(missing_ok=True)
    command = ["litlab.training.worker", str(run.path)]
    return run_warm(command, Path.cwd(), environment=os.environ | environment, timeout=200)


def test_a_worker_builds_nothing_hostile_on_any_rank(whole: RunDirectory, mark: Path) -> None:
    plant(Path.cwd(), mark)
    frozen = yaml.safe_load(whole.config.read_text())
    change(whole.path, model={"_target_": "theirs.Net"}, trainer=frozen["trainer"] | {"devices": 2})
    done = work(whole)
    assert done.returncode == 1
    assert "is untrusted" in done.stderr
    assert "--allow theirs" in done.stderr
    assert not mark.exists()
    change(whole.path, trainer=frozen["trainer"])
    work(whole, LITLAB_ALLOW="theirs")
    assert mark.exists()
    mark.unlink()
    sign(whole)
    (whole.path / "provenance.json").write_text('{"project": "/nowhere"}')
    assert work(whole).returncode == 1
    assert not mark.exists()
