"""The section "Transforms" of docs/extending.md, as a reader would follow it."""

from pathlib import Path

import pytest
from support.runs import Command
from support.snippets import read_snippets

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

SNIPPETS = read_snippets("extending.md", "Transforms")
SMALL = (
    "data.num_train=60", "data.num_test=20", "data.val_size=12", "data.batch_size=16", "model=resnet18",
    "model.width=2", "trainer=cpu", "trainer.max_epochs=1", "threads=1", "~logger", "~callbacks",
)  # fmt: skip


def test_a_data_set_with_transforms(tmp_path: Path, litlab: Command) -> None:
    SNIPPETS.write(tmp_path / "project")
    accepted, refused = SNIPPETS.commands
    done = litlab(*accepted, *SMALL, f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr) == (0, "")
    run = RunDirectory(tmp_path / "run")
    assert read_result(run)["status"] == "completed"
    assert run.read_json(run.dataset)["image_shape"] == [3, 24, 28]
    done = litlab(*refused, *SMALL)
    assert done.returncode == 1
    assert "data.transforms.eval.0.sice: torchvision.transforms.v2.CenterCrop takes no argument 'sice'" in done.stderr


def test_a_transform_of_float_images(tmp_path: Path, litlab: Command) -> None:
    (content,) = [content for language, content in SNIPPETS.blocks if "GaussianNoise" in content]
    config = tmp_path / "project" / "conf" / "data" / "noisy.yaml"
    config.parent.mkdir(parents=True)
    indented = "".join(f"    {line}\n" for line in content.splitlines())
    config.write_text(f"defaults: [shapes]\ntransforms:\n  train:\n{indented}  eval: []\n")
    done = litlab("train", "data=noisy", *SMALL, f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_result(RunDirectory(tmp_path / "run"))["status"] == "completed"
