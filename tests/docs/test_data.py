"""The sections on data of docs/extending.md, and docs/k_fold.md, as a reader would follow them."""

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.images import write_folder
from support.published import write_mnist
from support.runs import Command
from support.snippets import DOCS, read_snippets

from litlab.config.schema import TORCHVISION_OF_ANY_SIZE, TORCHVISION_OF_ONE_SIZE
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

DATA, FOLDS = read_snippets("extending.md", "Data"), read_snippets("k_fold.md")
IMAGES, DARK = read_snippets("extending.md", "Images of your own"), read_snippets("extending.md", "Low light")
SMALL = ("model.widths=[2,4]", "model.hidden=[8]", "trainer=cpu", "trainer.max_epochs=1", "threads=1")


def test_a_data_set_of_torchvision(litlab: Command, tmp_path: Path) -> None:
    write_mnist(tmp_path / "mnist")
    command, _ = DATA.commands
    own = (f"data.root={tmp_path / 'mnist'}", "data.val_size=10", "data.batch_size=8")
    done = litlab(*command, *own, *SMALL, f"hydra.run.dir={tmp_path / 'run'}")
    assert (done.returncode, done.stderr) == (0, "")
    run = RunDirectory(tmp_path / "run")
    assert read_result(run)["status"] == "completed"
    assert run.read_json(run.dataset)["image_shape"] == [1, 28, 28]


def test_the_page_names_all_data_sets_of_torchvision() -> None:
    page = (DOCS / "extending.md").read_text()
    for start, names in (("of one size", TORCHVISION_OF_ONE_SIZE), ("of any size", TORCHVISION_OF_ANY_SIZE)):
        (row,) = re.findall(rf"^\| {start}.*? \| (.*) \|$", page, re.MULTILINE)
        assert sorted(row.split(", ")) == sorted(names)


def test_a_data_set_of_hugging_face(litlab: Command, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, number in (("train", 12), ("test", 6)):
        for name in ("cat", "dog"):
            folder = tmp_path / "project" / "photos" / split / name
            folder.mkdir(parents=True)
            for row in range(number):
                pixels = random.integers(0, 256, (30 + row, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{row}.jpg")
    _, command = DATA.commands
    own = ("data.batch_size=8", f"hydra.run.dir={tmp_path / 'run'}")
    done = litlab(*command, *own, *SMALL, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 0, done.stderr
    run = RunDirectory(tmp_path / "run")
    assert read_result(run)["status"] == "completed"
    assert run.read_json(run.dataset)["class_names"] == ["cat", "dog"]


def test_an_archive_of_images(litlab: Command, tmp_path: Path) -> None:
    project = tmp_path / "project"
    write_folder(project / "flowers")
    with zipfile.ZipFile(project / "flowers.zip", "w") as archive:
        for file in sorted((project / "flowers").rglob("*.*")):
            archive.write(file, file.relative_to(project / "flowers"))
    (command,) = IMAGES.commands
    own = ("data.batch_size=8", "data.val_size=0.2", f"hydra.run.dir={tmp_path / 'run'}")
    done = litlab(*command, *own, *SMALL)
    assert (done.returncode, done.stderr) == (0, "")
    run = RunDirectory(tmp_path / "run")
    assert read_result(run)["status"] == "completed"
    assert run.read_json(run.dataset)["image_shape"] == [3, 64, 64]


def test_low_light(litlab: Command, tmp_path: Path) -> None:
    (command,) = DARK.commands
    small = ("data=shapes", "data.num_train=100", "data.num_test=20", "data.val_size=20", "data.batch_size=16", *SMALL)
    done = litlab(*command, *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("litlab: darkened by 2 to 8 stops")
    run = RunDirectory(tmp_path / "run")
    assert max(run.read_json(run.dataset)["mean"]) < 0.2


def test_folds(litlab: Command, tmp_path: Path) -> None:
    train, compare = FOLDS.commands
    small = ("data.num_train=100", "data.num_test=20", "data.batch_size=16", *SMALL)
    done = litlab(*train, *small)
    assert done.returncode == 0, done.stderr
    study = tmp_path / "project" / "outputs" / "lr_by_fold"
    runs = [RunDirectory(path.parent) for path in study.glob("*/result.json")]
    assert len(runs) == 10
    assert {run.read_json(run.dataset)["num_val"] for run in runs} == {20}
    assert len({run.read_json(run.dataset)["mean"][0] for run in runs}) == 5, "of the training folds"
    table = litlab(*compare)
    assert table.returncode == 0, table.stderr
    assert re.search(r"^0.05\s+5 ", table.stdout, re.MULTILINE)
    text = " ".join(table.stdout.split())
    assert "paired by fold" in text
    assert "The unit is the fold: n counts folds." in text
