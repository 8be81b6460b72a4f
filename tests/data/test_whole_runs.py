"""Whole runs with streamed, mixed and progressively resized images."""

import math
import os
import time
from pathlib import Path
from typing import Any

import pytest
from support.exact_resume import differences, new_run, outcome, train_until
from support.images import write_folder
from support.runs import NO_PICTURES

from litlab.config.resume_overrides import change_config
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

SMALL = (
    "model=resnet18", "model.width=2", "optimizer.lr=0.01", "data.batch_size=8", "data.crop_padding=2",
    *NO_PICTURES,
    "~logger", "trainer=cpu", "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2", "threads=1",
)  # fmt: skip
SHAPES = ("data=shapes", "data.num_train=40", "data.num_test=16", "data.val_size=8", *SMALL)
MIXED = ("data.mixup=0.2", "data.cutmix=1.0", "data.cutout=6", "data.flip=alternating")


def completed(run: RunDirectory, config: dict[str, Any]) -> dict[str, Any]:
    """Train to the end; return all rows, the metrics, a hash of the weights and the identity."""
    train_until(run, config, None)
    result = outcome(run)
    return {"rows": result["rows"], "result": result["result"], "identity": read_result(run)["identity"]}


@pytest.fixture
def folder_overrides(tmp_path: Path) -> tuple[str, ...]:
    write_folder(tmp_path / "images", num_train=12, num_test=3)
    own = (f"data.root={tmp_path / 'images'}", f"data.cache={tmp_path / 'cache'}", "data.image_size=16")
    return ("data=image_folder", *own, "data.val_size=4", *SMALL, *MIXED)


@pytest.mark.integrations
def test_a_streamed_run_equals_one_in_memory_even_if_stopped(folder_overrides: tuple[str, ...], tmp_path: Path) -> None:
    expected = completed(*new_run(tmp_path / "memory", *folder_overrides))
    streamed = (*folder_overrides, "data.storage=stream", "data.num_workers=2")
    assert differences(expected, completed(*new_run(tmp_path / "stream", *streamed))) == []
    run, config = new_run(tmp_path / "stopped", *streamed)
    assert train_until(run, config, 3) is None  # in the first epoch
    other_workers = change_config(config, ["data.num_workers=0"], lambda: 1).config
    assert differences(expected, completed(run, other_workers)) == []


def test_a_damaged_image_ends_a_streamed_run_with_its_name(folder_overrides: tuple[str, ...], tmp_path: Path) -> None:
    run, config = new_run(tmp_path / "run", *folder_overrides, "data.storage=stream", "data.num_workers=2")
    train_until(run, config, 2)
    for path in (tmp_path / "images" / "train" / "dog").iterdir():
        status = path.stat()
        path.write_bytes(b"damaged".ljust(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # or it would be another data set
    start = time.monotonic()
    with pytest.raises(UserError, match=r"train/dog/\d\d\.\w+ can't be read as a JPEG, PNG or WebP image"):
        train_until(run, config, None)
    assert time.monotonic() - start < 4, "the run waits for workers that were not stopped"


@pytest.mark.integrations
def test_progressive_sizes_and_mixing_resume_exactly(tmp_path: Path) -> None:
    overrides = (*SHAPES, *MIXED, "data.progressive_sizes=[16,32]")
    whole, config = new_run(tmp_path / "whole", *overrides)
    assert train_until(whole, config, None)
    for number in (3, 7):  # one in the epoch of each size
        run, _ = new_run(tmp_path / f"stopped-{number}", *overrides)
        assert train_until(run, config, number) is None
        train_until(run, config, None)
        assert differences(outcome(whole), outcome(run)) == []


@pytest.mark.integrations
def test_images_drawn_by_their_losses_resume_exactly(tmp_path: Path) -> None:
    """Stop within an epoch, and continue for longer after the end."""
    network = ("model=cnn", "model.widths=[2]", "model.hidden=[]", "schedule=constant")
    overrides = (*(override for override in SHAPES if "model" not in override), *network, "data.hard_fraction=0.5")
    run, shorter = new_run(tmp_path / "run", *overrides)
    assert (
        train_until(run, shorter, 5) is None
    )  # of 32 images, an epoch visits 2 batches; then there is 1 of validation
    assert train_until(run, shorter, None)
    assert train_until(run, change_config(shorter, ["trainer.max_epochs=3"], lambda: 2).config, None)
    whole, config = new_run(tmp_path / "whole", *overrides, "trainer.max_epochs=3")
    assert train_until(whole, config, None) == 3 * (2 + 1) + 2
    assert differences(outcome(whole), outcome(run)) == []
    losses = read_checkpoint(whole.last)["litlab"]["image_losses"]
    assert losses["epoch"] == 2
    assert [(losses[name] > -math.inf).sum() for name in ("known", "latest")] == [32, 16], "two epochs visit all"


def test_a_network_of_one_image_size_is_refused_before_training(tmp_path: Path) -> None:
    others = [override for override in SHAPES if not override.startswith("model")]
    run, config = new_run(tmp_path / "run", *others, "model=cnn", "data.progressive_sizes=[16,32]")
    with pytest.raises(UserError, match=r"progressive_sizes=\[16, 32\]: CNN can't take images of 16x16 .*resnet18"):
        train_until(run, config, None)


def test_a_run_without_test_images_completes(
    folder_overrides: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images" / "test").rename(tmp_path / "images" / "val")
    run, config = new_run(tmp_path / "run", *folder_overrides, "data.test_size=0")
    train_until(run, config, None)
    result, info = read_result(run), run.read_json(run.dataset)
    assert (result["status"], result["test"]) == ("completed", {})
    assert (info["num_train"], info["num_val"], info["num_test"]) == (36, 9, 0)
    printed = capsys.readouterr().err
    assert len(info["notes"]) == 2
    assert all(f"litlab: {note}\n" in printed for note in info["notes"])
