"""What pruning saves in a search: the same points, drawn at random, with the median pruner and to the end."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.harness import Row, interleaved, temporary_folder
from benchmarks.settings import Settings
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result

EPOCHS = 5
_DATA = ("data=shapes", "data.num_train=2500", "data.val_size=500", "data.num_test=500", "data.batch_size=32")


def rows(settings: Settings) -> list[Row]:
    """Seconds of whole commands, epochs that were trained, and the best validation accuracy of each."""
    with temporary_folder() as folder:
        found: dict[str, list[tuple[int, float]]] = {"median": [], "null": []}
        contenders: dict[str, Callable[[], object]] = {
            pruner: partial(_search, folder, pruner, settings, found[pruner]) for pruner in found
        }
        seconds = interleaved(contenders, num_warmup=0, num_rounds=settings.num_multiruns)
    name = f"search, {settings.num_trials} trials"
    epochs, best = ({pruner: tuple(each[at] for each in found[pruner]) for pruner in found} for at in (0, 1))
    return [
        Row(name, "s", seconds["median"], "the same without a pruner", seconds["null"]),
        Row("  epochs trained", "", epochs["median"], "the same without a pruner", epochs["null"]),
        Row("  best validation accuracy", "", best["median"], "the same without a pruner", best["null"]),
    ]


def _search(folder: Path, pruner: str, settings: Settings, found: list[tuple[int, float]]) -> None:
    """Append the epochs of all its jobs together and the best accuracy of those that trained to the end."""
    study = folder / f"{pruner}_{len(found)}"
    command = [sys.executable, "-m", "litlab", "train", "study=search_lr", *_DATA, "trainer=cpu"]
    command += [
        f"trainer.max_epochs={EPOCHS}",
        f"hydra.sweep.dir={study}",
        f"hydra.sweeper.trials={settings.num_trials}",
    ]
    command += [f"hydra.sweeper.pruner={pruner}", "hydra.sweeper.sampler=random"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    runs = [RunDirectory(each.parent) for each in study.glob("*/result.json")]
    assert len(runs) == settings.num_trials, len(runs)
    epochs = sum(row.metric == "val/accuracy" for run in runs for row in read_metrics(run.metrics))
    results = [read_result(run) for run in runs]
    found.append((epochs, max(each["objective"] for each in results if each["status"] == "completed")))
