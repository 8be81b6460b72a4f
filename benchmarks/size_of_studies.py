"""What a study costs as it grows: freezing its jobs, running them, looking at them."""

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.comparing import make_study, measure
from benchmarks.harness import Row
from benchmarks.multirun import frozen
from benchmarks.settings import Settings
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

# An epoch of eight steps.
_TINY = (
    "data=shapes", "data.num_train=168", "data.num_test=40", "data.val_size=40", "data.batch_size=16",
    "model.widths=[2,4]", "model.hidden=[8]", "trainer=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=4",
)  # fmt: skip


def rows(settings: Settings) -> list[Row]:
    return [*freezing_rows(settings), *looking_rows(settings), *pool_rows(settings)]


def freezing_rows(settings: Settings) -> list[Row]:
    """Seconds from override lists to composed, checked and frozen jobs."""
    return [
        Row(_jobs("freezing", number), "s", frozen(settings.data, number, settings.num_sizes)["litlab"])
        for number in settings.job_counts
    ]


def looking_rows(settings: Settings) -> list[Row]:
    """Seconds of whole commands on studies of finished jobs."""
    found = []
    for number in settings.job_counts:
        with TemporaryDirectory(prefix="litlab-bench-") as folder:
            study = Path(folder) / "study"
            make_study(study, number)
            for command in ("status", "compare"):
                seconds = tuple(measure(command, study)[0] for _ in range(settings.num_sizes))
                found.append(Row(_jobs(f"litlab {command}", number), "s", seconds))
    return found


def pool_rows(settings: Settings) -> list[Row]:
    """Seconds of whole multiruns of tiny jobs: what is left is what a job costs besides its training."""
    return [
        Row(_jobs("litlab train -m", number), "s", tuple(_multirun(number) for _ in range(settings.num_sizes)))
        for number in settings.pooled_counts
    ]


def _multirun(number: int) -> float:
    with TemporaryDirectory(prefix="litlab-bench-") as folder:
        study = Path(folder) / "study"
        command = [sys.executable, "-m", "litlab", "train", "-m", *_TINY, f"hydra.sweep.dir={study}"]
        command.append(f"seed={','.join(map(str, range(number)))}")
        began = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        seconds = time.perf_counter() - began
        statuses = [read_result(RunDirectory(each.parent))["status"] for each in study.glob("*/result.json")]
        assert statuses == ["completed"] * number, statuses
        return seconds


def _jobs(what: str, number: int) -> str:
    return f"{what}, {number:,} job{'s' * (number != 1)}"
