"""`litlab evaluate` on other images than those of the training, whose classes are matched by name."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from support.images import write_folder
from support.runs import train_here
from torch import Tensor, nn

from litlab.cli import evaluate
from litlab.errors import UserError
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json

TINY = (
    "data=image_folder", "data.batch_size=8", "data.image_size=16", "data.val_size=6", "model.widths=[2,4]",
    "model.hidden=[8]", "~logger", "~callbacks", "trainer=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1",
    "threads=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder_run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """One finished run on a folder `images` beside it."""
    folder = tmp_path_factory.mktemp("folder")
    write_folder(folder / "images", num_train=6, num_test=4)
    return train_here(folder / "run", *TINY, f"data.root={folder / 'images'}")


@pytest.fixture
def other(folder_run: RunDirectory, tmp_path: Path) -> Path:
    """Copy the images of the run."""
    return Path(shutil.copytree(folder_run.path.parent / "images", tmp_path / "other"))


def evaluated(capsys: pytest.CaptureFixture[str], run: RunDirectory, root: Path, *options: str) -> dict[str, Any]:
    """Evaluate on other images; return the report, and the messages as `notes`."""
    evaluate.main([str(run.path), "--json", "--set", f"data.root={root}", *options])
    output = capsys.readouterr()
    report: dict[str, Any] = json.loads(output.out)
    return report | {"notes": output.err}


def test_a_moved_data_set_is_the_same(
    folder_run: RunDirectory, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = evaluated(capsys, folder_run, other)
    assert report["metrics"] == folder_run.read_json(folder_run.result)["test"]
    assert (report["same_data"], report["notes"]) == (True, "")


@pytest.mark.parametrize("flat", [False, True])
def test_a_test_folder_or_folders_of_classes_suffice(
    folder_run: RunDirectory, other: Path, flat: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(other / "train")
    report = evaluated(capsys, folder_run, other / "test" if flat else other)
    assert report["metrics"] == folder_run.read_json(folder_run.result)["test"]
    assert report["same_data"] is None
    assert "all 12 images of" in report["notes"]


@pytest.mark.parametrize(("recorded", "depth"), [(14, 14), (None, 16)])
def test_16_bits_are_scaled_as_in_the_training(
    folder_run: RunDirectory, recorded: int | None, depth: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluate images of 12 bits on a run whose training images had 14, or none 16; predictions scale them so, too."""
    gray = np.random.default_rng(0).integers(0, 2**12, (3, 16, 16), dtype=np.uint16)
    for root, images in (("deep", gray), ("plain", (gray // 2 ** (depth - 8)).astype(np.uint8))):
        for class_name, image in zip(("cat", "dog", "emu"), images, strict=True):
            (tmp_path / root / class_name).mkdir(parents=True)
            Image.fromarray(image).save(tmp_path / root / class_name / "0.png")
    run = RunDirectory(Path(shutil.copytree(folder_run.path, tmp_path / "run")))
    write_json(run.dataset, run.read_json(run.dataset) | {"bit_depth": recorded})
    deep, plain = (evaluated(capsys, run, tmp_path / root) for root in ("deep", "plain"))
    assert deep["metrics"] == plain["metrics"]
    assert ("16-bit images are scaled from 14 bits: 16,383 is white" in deep["notes"]) == (depth == 14)


class CountsClasses(nn.Module):
    """Loss that depends on the number of training images of each class."""

    def __init__(self, *, class_counts: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("shift", Tensor(class_counts).log(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits + self.shift, labels, reduction="none")


def test_a_loss_keeps_the_class_counts_of_the_training(
    tmp_path: Path, other: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights and counts of other images, which have no training images at all, would give another value or none."""
    root = other.rename(tmp_path / "images")
    loss = f"+task.loss._target_={__name__}.CountsClasses"
    run = train_here(tmp_path / "run", *TINY, f"data.root={root}", loss, "task.class_weights=balanced")
    counts = run.read_json(run.dataset)["class_counts"]
    assert sum(counts) == run.read_json(run.dataset)["num_train"]
    shutil.copytree(root / "test", tmp_path / "tested")
    capsys.readouterr()
    report = evaluated(capsys, run, tmp_path / "tested", "--allow", f"{__name__}.CountsClasses")
    assert report["metrics"] == pytest.approx(run.read_json(run.result)["test"])


def test_classes_are_matched_by_name(folder_run: RunDirectory, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    losses = []
    for name in ("cat", "dog", "emu"):
        (other / name).mkdir()
        shutil.copytree(other / "test" / name, other / name / "test" / name)
        losses.append(evaluated(capsys, folder_run, other / name)["metrics"]["test/loss"])
    assert len(set(losses)) == 3
    expected = folder_run.read_json(folder_run.result)["test"]["test/loss"]
    assert sum(losses) / 3 == pytest.approx(expected, rel=1e-5)
    shutil.rmtree(other / "train" / "dog")
    assert evaluated(capsys, folder_run, other)["metrics"]["test/loss"] == expected
    (other / "test" / "dog").rename(other / "test" / "wolf")
    with pytest.raises(UserError, match=r"not trained on the class wolf, but on cat, dog, emu: rename the folder"):
        evaluated(capsys, folder_run, other)


def test_a_split_without_images(folder_run: RunDirectory, other: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(other / "train")
    with pytest.raises(UserError, match="--split val: the data have no validation images"):
        evaluated(capsys, folder_run, other, "--split", "val")
    (other / "test").rename(other / "val")
    assert evaluated(capsys, folder_run, other, "--split", "val")["metrics"]["val/loss"] == pytest.approx(
        folder_run.read_json(folder_run.result)["test"]["test/loss"]
    )
