"""Costs of a study by its number of jobs: freezing, running and looking at them."""

import time

from benchmarks.comparing import make_study, measure
from benchmarks.harness import Row, temporary_folder
from benchmarks.multirun import frozen, train_jobs
from benchmarks.settings import Settings

# An epoch of eight steps.
_TINY = (
    "data=shapes", "data.num_train=168", "data.num_test=40", "data.val_size=40", "data.batch_size=16",
    "model.widths=[2,4]", "model.hidden=[8]", "trainer=cpu", "trainer.max_epochs=1", "trainer.log_every_n_steps=4",
)  # fmt: skip


def rows(settings: Settings) -> list[Row]:
    return [*freezing_rows(settings), *looking_rows(settings), *pool_rows(settings)]


def freezing_rows(settings: Settings) -> list[Row]:
    """Measure seconds from override lists to composed, checked and frozen jobs."""
    return [
        Row(_jobs("freezing", number), "s", frozen(settings.data, number, settings.num_sizes)["litlab"])
        for number in settings.job_counts
    ]


def looking_rows(settings: Settings) -> list[Row]:
    """Measure seconds of whole commands on studies of finished jobs."""
    rows = []
    for number in settings.job_counts:
        with temporary_folder() as folder:
            study = folder / "study"
            make_study(study, number)
            for command in ("status", "compare"):
                seconds = tuple(measure(command, study)[0] for _ in range(settings.num_sizes))
                rows.append(Row(_jobs(f"litlab {command}", number), "s", seconds))
    return rows


def pool_rows(settings: Settings) -> list[Row]:
    """Measure seconds of whole multiruns of tiny jobs: mostly the cost of a job besides its training."""
    return [
        Row(_jobs("litlab train -m", number), "s", tuple(_multirun(number) for _ in range(settings.num_sizes)))
        for number in settings.pooled_counts
    ]


def _multirun(number: int) -> float:
    with temporary_folder() as folder:
        began = time.perf_counter()
        train_jobs(folder / "study", number, *_TINY, f"seed={','.join(map(str, range(number)))}")
        return time.perf_counter() - began


def _jobs(action: str, number: int) -> str:
    return f"{action}, {number:,} job{'s' * (number != 1)}"
