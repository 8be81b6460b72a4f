"""The rows of the first table of docs/extending.md: a wrong setting is refused; best, compare and exact resume hold."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from support.killed_run import add_kill
from support.published import write_mnist
from support.runs import Command
from support.snippets import DOCS, read_snippets

from litlab.config.config_file import from_yaml
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

pytestmark = pytest.mark.integrations

COMMON = (
    "trainer=cpu", "trainer.max_epochs=3", "trainer.log_every_n_steps=3", "threads=1", "checkpoint.every_steps=2",
)  # fmt: skip
CNN = ("model.widths=[2,4]", "model.hidden=[8]")
SHAPES = ("data.num_train=88", "data.num_test=20", "data.val_size=20", "data.batch_size=16")
SMALL = ("data=shapes", *SHAPES, *CNN)


def write_photos(project: Path) -> None:
    random = np.random.default_rng(0)
    for split, number in (("train", 40), ("test", 6)):
        for name in ("cat", "dog"):
            folder = project / "photos" / split / name
            folder.mkdir(parents=True)
            for row in range(number):
                Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / f"{row}.jpg")


class Row(NamedTuple):
    """Row of the table.

    Attributes:
        section: Section of the page with the files to write, if there are any.
        settings: Overrides that bring one's own.
        wrong: A wrong override.
        message: Part of its refusal.
        prepare: Writes what the snippets leave to the reader.
    """

    section: str | None
    settings: tuple[str, ...]
    wrong: str
    message: str
    prepare: Callable[[Path], object] = lambda project: None


FINE_TUNED = (*SMALL, "init_from=pretrained")
ROWS = {
    "network": Row("Network", ("data=shapes", *SHAPES, "model=small", "model.width=2"), "model.widht=3", "model.width"),
    "loss": Row("Loss", (*SMALL, "task=focal"), "+task.loss.gama=1", "takes no argument 'gama'; did you mean gamma"),
    "metric": Row(
        "Metric",
        (*SMALL, "+task.metrics.worst={_target_: mymetrics.WorstClassAccuracy}", "objective.metric=val/worst"),
        "+task.metrics.accuracy={_target_: mymetrics.WorstClassAccuracy}",
        "accuracy is a built-in metric; use another name",
    ),
    "transforms of images": Row(
        "Transforms",
        ("data=foggy", *SHAPES, "model=resnet18", "model.width=2"),
        "data.transforms.eval=[{_target_: torchvision.transforms.v2.CenterCrop, sice: 24}]",
        "takes no argument 'sice'",
    ),
    "data set of torchvision": Row(
        "Data",
        ("data=torchvision", "data.name=MNIST", "data.root=mnist", "data.val_size=10", "data.batch_size=8", *CNN),
        "data.name=MINST",
        "MNIST",
        lambda project: write_mnist(project / "mnist"),
    ),
    "data set of Hugging Face": Row(
        "Data",
        ("data=huggingface", "data.path=photos", "data.batch_size=16", *CNN),
        "data.colunm=label",
        "data.colunm",
        write_photos,
    ),
    "k-fold": Row(
        None,
        ("data=shapes", *SHAPES[:2], "data.batch_size=16", *CNN, "data.folds=4", "data.fold=1"),
        "data.fold=4",
        "data.fold=4",
    ),
    "schedule": Row(
        "Schedule",
        (*SMALL, "schedule=staircase"),
        "schedule.intervall=epoch",
        "schedule.intervall: unknown key; did you mean schedule.interval?",
    ),
    "optimizer": Row(
        "Optimizer",
        (*SMALL, "optimizer=sign", "schedule=constant"),
        "+optimizer.momentun=0.9",
        "optimizer.momentun: mysgd.SignSGD takes no argument 'momentun'",
    ),
    "callback": Row(
        "Callback",
        (*SMALL, "callbacks=budget", "schedule=constant"),
        "+callbacks.budget.bugdet=1",
        "callbacks.budget.bugdet: mycallbacks.LossBudget takes no argument 'bugdet'; did you mean budget",
    ),
    "data module of pairs": Row("Data of any kind", ("data=blobs", *CNN), "+data.size=3", "takes no argument 'size'"),
    "data and module of any kind": Row(
        "Data of any kind", ("experiment=words",), "+task.depth=2", "words.Reader takes no argument 'depth'"
    ),
    "subclass of a data module or task": Row(
        "Subclass of our data module or task",
        ("data=stripes", "data.num_images=120", "data.batch_size=16", "task=sparse", *CNN),
        "data.mixup=-1",
        "data.mixup=-1: expected",
    ),
    "LightningModule": Row(
        "LightningModule", ("experiment=line",), "+task.rate=0.5", "my_task.LineFit takes no argument 'rate'"
    ),
    "weights to start from": Row(None, FINE_TUNED, "init_from=nowhere", "init_from=nowhere: no such file"),
    "logger": Row(
        "Logger",
        (*SMALL, "logger=[tensorboard,diary]"),
        "+logger.diary.volume=1",
        "my_logger.Diary takes no argument 'volume'",
    ),
}


def test_the_table_has_these_rows() -> None:
    titles = re.findall(r"^\| \[(.+?)\]\(", (DOCS / "extending.md").read_text(), re.MULTILINE)
    assert titles == [*ROWS, "a script or notebook"]  # see tests/docs/test_python.py


@pytest.mark.parametrize("title", ROWS)
def test_a_row_holds(title: str, tmp_path: Path, litlab: Command) -> None:
    project, row = tmp_path / "project", ROWS[title]
    if row.section is not None:
        read_snippets("extending.md", row.section).write(project)
    row.prepare(project)
    if row.settings == FINE_TUNED:
        done = litlab("train", *SMALL, *COMMON, "seed=5", "hydra.run.dir=pretrained")
        assert done.returncode == 0, done.stderr
    settings = (*row.settings, *COMMON)
    refused = litlab("train", *settings, row.wrong)
    assert refused.returncode == 1
    assert refused.stderr.startswith("litlab: ")
    assert row.message in refused.stderr
    assert not (project / "outputs").exists()

    done = litlab("train", "-m", *settings, "seed=0,1", "study.name=row")
    assert done.returncode == 0, done.stderr
    whole, other = (RunDirectory(path) for path in sorted((project / "outputs" / "row").glob("000*")))
    assert whole.best.exists()
    objective = from_yaml(whole.config.read_text())["objective"]["metric"]
    assert read_result(whole)["objective"] == read_result(whole)["best"][objective]
    assert read_result(whole)["weights"] != read_result(other)["weights"]
    assert list(whole.path.glob("events.out.tfevents.*"))
    compared = litlab("compare", "outputs/row", "--format", "csv")
    assert compared.returncode == 0, compared.stderr
    assert objective in compared.stdout

    run = RunDirectory(tmp_path / "killed")
    killed = litlab("train", *settings, add_kill(project), f"hydra.run.dir={run.path}", KILL_AT_BATCH="5")
    assert "SIGKILL" in killed.stderr, killed.stderr
    assert run.last.exists()
    resumed = litlab("resume", str(run.path))
    assert resumed.returncode == 0, resumed.stderr
    for key in ("weights", "best", "last", "test", "stop_reason"):
        assert read_result(run)[key] == read_result(whole)[key]
    rows, expected = (
        [value for value in read_metrics(directory.metrics) if not value.metric.startswith("throughput")]
        for directory in (run, whole)
    )
    assert rows == expected
