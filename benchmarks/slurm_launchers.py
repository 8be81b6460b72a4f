"""A multirun on SLURM by litlab and by Hydra's submitit launcher: the same jobs, two at a time.

It needs a cluster, as `benchmarks/slurm.py` does, and hydra-submitit-launcher, which litlab does not install.
"""

import subprocess
import sys
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks import in_memory, slurm
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved, temporary_folder
from benchmarks.multirun import BATCH_SIZE, EPOCHS, NUM_VAL_BATCHES, RATES, axes, new_directory, train_jobs
from benchmarks.settings import Settings

NO_SUBMITIT = "size: no row of Hydra's submitit launcher, since hydra-submitit-launcher is not installed"
PARALLEL = 2
_CHECKOUT = Path(__file__).parents[1]


def rows(settings: Settings) -> list[Row]:
    """Measure whole commands, from their start to the last result; nothing without a cluster or submitit."""
    if find_spec("hydra_plugins.hydra_submitit_launcher") is None:
        print(NO_SUBMITIT, file=sys.stderr)
        return []
    if slurm.why_not():
        return []
    num_seeds = min(2, settings.num_seeds)
    with temporary_folder() as folder, slurm.cluster():
        arrays = folder / "arrays"
        arrays.mkdir()
        in_memory.save(prepared(*settings.multirun_data), arrays, num_val=NUM_VAL_BATCHES * BATCH_SIZE)
        contenders = {
            "litlab": partial(litlab, folder, settings.multirun_data, num_seeds),
            "submitit": partial(submitit, folder, arrays, num_seeds),
        }
        seconds = interleaved(contenders, num_warmup=0, num_rounds=settings.num_multiruns)
    name = f"SLURM, multirun of {len(RATES) * num_seeds} jobs"
    return [Row(name, "s", seconds["litlab"], "@hydra.main, Lightning, submitit launcher", seconds["submitit"])]


def litlab(folder: Path, data: tuple[str, ...], num_seeds: int) -> None:
    """Run `litlab train -m` with every default on."""
    train_jobs(
        new_directory(folder), len(RATES) * num_seeds, *data, "trainer=cpu", f"trainer.max_epochs={EPOCHS}",
        f"trainer.limit_val_batches={NUM_VAL_BATCHES}", *axes(num_seeds), "hydra/launcher=slurm",
        "hydra.launcher.cpus=1", f"hydra.launcher.jobs={PARALLEL}",
    )  # fmt: skip


def submitit(folder: Path, arrays: Path, num_seeds: int) -> None:
    """Run the script of `benchmarks/usual.py` with the launcher's defaults, and check that all jobs have trained."""
    study = new_directory(folder)
    command = [sys.executable, "-m", "benchmarks.usual", "-m", f"data={arrays}", f"epochs={EPOCHS}", "threads=1"]
    command += [*(axis.removeprefix("optimizer.") for axis in axes(num_seeds)), f"hydra.sweep.dir={study}"]
    command += ["hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1"]
    command += [f"hydra.launcher.array_parallelism={PARALLEL}"]
    subprocess.run(command, check=True, cwd=_CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    checkpoints = list(study.glob("*/**/*.ckpt"))
    assert len(checkpoints) == len(RATES) * num_seeds, checkpoints
