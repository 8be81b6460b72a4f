"""A multirun of the tutorial CNN on one GPU, with one to eight jobs at a time."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.data_path import prepared
from benchmarks.harness import Row, temporary_folder
from benchmarks.multirun import train_jobs
from benchmarks.settings import Settings

NUM_JOBS = 8
JOBS_PER_DEVICE = (1, 2, 4, 8)
BATCH_SIZE = 4  # of the tutorial


def overrides(settings: Settings, jobs_per_device: int) -> tuple[str, ...]:
    """Return the command line of a multirun over seeds; every job makes the same number of steps."""
    return (
        "experiment=tutorial", *settings.data, "data.val_size=0", "trainer=gpu", f"data.batch_size={BATCH_SIZE}",
        f"trainer.max_steps={settings.num_pooled_steps}", f"seed={','.join(map(str, range(NUM_JOBS)))}",
        f"hydra.launcher.jobs_per_device={jobs_per_device}",
    )  # fmt: skip


def rows(
    settings: Settings,
    train_jobs: Callable[..., object] = train_jobs,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Row]:
    """Measure whole commands, from start to exit, by the images that all jobs train on per second."""
    prepared(*settings.data, "data.val_size=0")  # decoded before, since the first command would have to do it
    num_images = NUM_JOBS * BATCH_SIZE * settings.num_pooled_steps
    speeds = {}
    with temporary_folder() as folder:
        for number in JOBS_PER_DEVICE:
            began = clock()
            train_jobs(_study(folder, number), NUM_JOBS, *overrides(settings, number))
            speeds[number] = num_images / (clock() - began)
    name = f"GPU: multirun of {NUM_JOBS} tutorial CNNs, hydra.launcher.jobs_per_device"
    first = (speeds[JOBS_PER_DEVICE[0]],)
    return [
        Row(f"{name}={number}", "images/s", (speed,), *(("one at a time", first) if number > 1 else ()))
        for number, speed in speeds.items()
    ]


def _study(folder: Path, number: int) -> Path:
    return folder / f"jobs_per_device_{number}"
