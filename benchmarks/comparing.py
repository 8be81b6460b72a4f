"""`litlab compare` on a large study: seconds and memory of the whole command, with the start of Python."""

import itertools
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, temporary_folder
from benchmarks.runs import compose_config
from benchmarks.settings import Settings
from litlab.config.config_file import to_yaml
from litlab.config.identity import identity
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import MetricsWriter
from litlab.runs.result import Result, write_result
from litlab.runs.state import RunStatus
from litlab.sweep.study import JobRecord, Plan

EPOCHS = 100
ROWS_PER_EPOCH = 4  # of the training, with three values each
SEEDS = 5
STEPS = 40  # in an epoch
# `python -m litlab`, which says at its end the peak of its memory in kB; that of getrusage begins with the parent's.
_COMMAND = """
import atexit, pathlib, runpy, sys
peak = lambda: next(line for line in pathlib.Path("/proc/self/status").open() if line.startswith("VmHWM"))
atexit.register(lambda: print(peak(), file=sys.stderr))
runpy.run_module("litlab", run_name="__main__")
"""


def rows(settings: Settings) -> list[Row]:
    """Measure the table without options, and with values that only metrics.csv holds."""
    measured = []
    with temporary_folder() as folder:
        study = folder / "study"
        make_study(study, settings.num_compared)
        name = f"litlab compare, {settings.num_compared:,} runs of {EPOCHS} epochs"
        for title, arguments in ((name, ()), ("  --at epoch=50", ("--at", "epoch=50"))):
            values = [measure("compare", study, *arguments) for _ in range(1 + settings.num_rounds)][1:]
            measured.append(Row(title, "s", tuple(seconds for seconds, _ in values)))
            measured.append(Row(f"{title}: peak memory", "MiB", tuple(memory for _, memory in values)))
    return measured


def measure(name: str, study: Path, *arguments: str) -> tuple[float, float]:
    """Return seconds and peak memory in MiB of a whole command."""
    command = [sys.executable, "-c", _COMMAND, name, str(study), *arguments]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - began, int(done.stderr.split()[-2]) / 1024


def make_study(path: Path, num_runs: int) -> None:
    """Write the files of a study of learning rates and seeds, without training."""
    config = compose_config("data=shapes", "trainer=cpu", f"trainer.max_epochs={EPOCHS}")
    config["study"] = {"name": "study", "swept": ["optimizer.lr", "seed"]}
    rates = [round(0.001 * number, 3) for number in range(1, -(-num_runs // SEEDS) + 1)]
    path.mkdir()
    lines = []
    for number, (lr, seed) in enumerate(itertools.islice(itertools.product(rates, range(SEEDS)), num_runs)):
        config["seed"] = config["data"]["seed"] = seed
        config["optimizer"]["lr"] = lr
        name = f"{number:04d}_lr-{lr}_seed-{seed}"
        _make_run(path / name, config, accuracy=0.9 - (lr - 0.05) ** 2 + 0.002 * seed)
        point = {"optimizer.lr": str(lr), "seed": str(seed)}
        lines.append(JobRecord(number, name, identity(config), [f"{k}={v}" for k, v in point.items()], point).to_line())
    axes = {"optimizer.lr": [str(lr) for lr in rates], "seed": [str(seed) for seed in range(SEEDS)]}
    plan = Plan("grid", axes, config, ["-m"], {}, {}, str(path.parent), "2026-11-23T10:00:00+00:00", num_runs)
    (path / "study.yaml").write_text(plan.to_yaml())
    (path / "jobs.jsonl").write_text("".join(lines))


def _make_run(path: Path, config: dict[str, Any], accuracy: float) -> None:
    run = RunDirectory.create(path, to_yaml(config), {}, sync=False)
    writer = MetricsWriter(run.metrics)
    for epoch in range(EPOCHS):
        for row in range(1, ROWS_PER_EPOCH + 1):
            step = epoch * STEPS + row * STEPS // ROWS_PER_EPOCH
            writer.append(epoch, step, {"train/loss": 2 / (1 + epoch), "train/accuracy": accuracy, "lr": 0.1})
        now = accuracy * (1 - 0.5 ** (epoch + 1))
        writer.append(epoch, (epoch + 1) * STEPS, {"val/loss": 1 - now, "val/accuracy": now})
    writer.close()
    validated = {"val/loss": 1 - accuracy, "val/accuracy": accuracy}
    write_result(
        run,
        Result(
            RunStatus.COMPLETED, identity(config), accuracy, "d" * 64, validated, validated,
            {"test/loss": 1 - accuracy, "test/accuracy": accuracy}, EPOCHS, EPOCHS * STEPS, 62006,
            seconds={"fit": 100.0, "training": 98.0}, images_per_second=4000.0,
        ),
    )  # fmt: skip
