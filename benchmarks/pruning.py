"""Savings of pruning in a search: the same random points with the median pruner and without a pruner."""

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
    """Measure seconds of whole commands, number of trained epochs, and the best validation accuracy."""
    with temporary_folder() as folder:
        outcomes: dict[str, list[tuple[int, float]]] = {"median": [], "null": []}
        contenders: dict[str, Callable[[], object]] = {
            pruner: partial(_search, folder, pruner, settings, outcomes[pruner]) for pruner in outcomes
        }
        seconds = interleaved(contenders, num_warmup=0, num_rounds=settings.num_multiruns)
    name = f"search, {settings.num_trials} trials"
    against = "the same without a pruner"
    (epochs, best), (all_epochs, best_of_all) = (tuple(zip(*outcomes[pruner], strict=True)) for pruner in outcomes)
    return [
        Row(name, "s", seconds["median"], against, seconds["null"]),
        Row("  epochs trained", "", epochs, against, all_epochs),
        Row("  best validation accuracy", "", best, against, best_of_all),
    ]


def _search(folder: Path, pruner: str, settings: Settings, outcomes: list[tuple[int, float]]) -> None:
    """Append the epochs of all its jobs together and the best accuracy of those that trained to the end."""
    study = folder / f"{pruner}_{len(outcomes)}"
    command = [sys.executable, "-m", "litlab", "train", "study=search_lr", *_DATA, "trainer=cpu"]
    command += [f"trainer.max_epochs={EPOCHS}", f"hydra.sweep.dir={study}", "hydra.sweeper.sampler=random"]
    command += [f"hydra.sweeper.trials={settings.num_trials}", f"hydra.sweeper.pruner={pruner}"]
    code = subprocess.run(command, stdout=subprocess.DEVNULL, cwd=folder).returncode
    runs = [RunDirectory(file.parent) for file in study.glob("*/result.json")]
    assert len(runs) == settings.num_trials, len(runs)
    epochs = sum(row.metric == "val/accuracy" for run in runs for row in read_metrics(run.metrics))
    results = [read_result(run) for run in runs]
    has_diverged = any(result["status"] == "diverged" for result in results)  # at the highest learning rates
    assert code == has_diverged, f"{' '.join(command)} ended with exit code {code}"
    outcomes.append((epochs, max(result["objective"] for result in results if result["status"] == "completed")))
