"""Time from `litlab train` on the command line to the end of the first step, by phase."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.harness import Row, interleaved, temporary_folder
from benchmarks.settings import Settings
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

POLL = 0.002  # seconds
_IMPORTS = {"import hydra": "hydra", "import torch, lightning": "torch, lightning"}
# The first step writes the first row of metrics.csv; what comes after it is made short.
ONE_STEP = (
    "trainer=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=1",
    "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1",
)  # fmt: skip


def rows(settings: Settings) -> list[Row]:
    """Measure the start against the bare imports that no such program can avoid, then its phases."""
    starts: list[dict[str, float]] = []
    with temporary_folder() as folder:
        contenders: dict[str, Callable[[], object]] = {name: partial(_import, _IMPORTS[name]) for name in _IMPORTS}
        contenders["litlab"] = lambda: starts.append(start(folder / f"{len(starts)}", *settings.data))
        imports = interleaved(contenders, num_warmup=1, num_rounds=settings.num_startups)
    counted = starts[1:]
    whole = tuple(sum(phases.values()) for phases in counted)
    measured = [Row("litlab train to the first step", "s", whole, name, imports[name]) for name in _IMPORTS]
    measured += [Row(f"  {phase}", "s", tuple(phases[phase] for phases in counted)) for phase in counted[0]]
    return measured


def start(directory: Path, *overrides: str) -> dict[str, float]:
    """Run `litlab train` to its end and return the seconds of each phase up to the end of the first step."""
    run = RunDirectory(directory)
    command = [sys.executable, "-m", "litlab", "train", f"hydra.run.dir={directory}", *ONE_STEP, *overrides]
    began = time.time()
    return phases(run, began=began, stepped=run_past_first_step(command, run))


def run_past_first_step(command: Sequence[str], run: RunDirectory) -> float:
    """Run a command that trains to its end; return the time of its first step, in seconds since 1970."""
    with subprocess.Popen(command, cwd=run.path.parent, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not run.metrics.exists():
            time.sleep(POLL)
        stepped = time.time()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}")
    return stepped


def phases(run: RunDirectory, *, began: float, stepped: float) -> dict[str, float]:
    """Compute the seconds of each phase from the modification times of a run's files and its own clock.

    Args:
        run: Finished run.
        began: Start of the command, in seconds since 1970.
        stepped: End of the first step, in seconds since 1970.
    """
    own = read_result(run)["seconds"]
    frozen = run.config.stat().st_mtime
    fitting = run.provenance.stat().st_mtime  # completed by the worker when the Trainer is there
    awake = fitting - own["import"] - own["data_and_network"] - own["trainer"]
    return {
        "compose, validate, freeze": frozen - began,
        "worker process": awake - frozen,
        "torch, lightning, litlab": own["import"],
        "data (cached), network": own["data_and_network"],
        "Trainer": own["trainer"],
        "first step": stepped - fitting,
    }


def _import(modules: str) -> None:
    subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)
