"""Cost of a default run against a loop by hand of the same network, data path, optimizer and schedule."""

import operator
from dataclasses import dataclass, replace

from benchmarks.bare import RECORD
from benchmarks.harness import Row, rates, temporary_folder
from benchmarks.runs import Train, in_worker
from benchmarks.settings import Settings
from litlab.runs.directory import RunDirectory

BY_HAND = "a loop by hand"
_NO_TEST = "trainer.limit_test_batches=1"  # it is not measured
_BESIDE = "+callbacks.side_by_side._target_="
ON_CPU = ("trainer=cpu", f"{_BESIDE}benchmarks.step_by_step.StepByStep")


@dataclass(frozen=True)
class EpochSeconds:
    """Seconds of all epochs without the first, which warms up; steps and images are those of one epoch."""

    num_steps: int
    num_images: int
    ours: tuple[float, ...]
    bare: tuple[float, ...]
    trainer: tuple[float, ...] = ()  # of Lightning's, bare


def throughput_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Measure training of the default network for each batch size and number of threads."""
    measured = []
    for batch_size in settings.batch_sizes:
        for threads in settings.threads:
            data = (*settings.data, f"data.batch_size={batch_size}", f"threads={threads}")
            name = f"training, batch {batch_size}, {threads} thread{'s' * (threads != 1)}"
            measured.append(throughput_row(name, epochs_of(settings, train, *ON_CPU, *data)))
    return measured


def throughput_row(name: str, epochs: EpochSeconds, against: str = BY_HAND) -> Row:
    """Return the images per second of litlab and of the loop by hand."""
    ours, bare = (rates(epochs.num_images, seconds) for seconds in (epochs.ours, epochs.bare))
    return Row(name, "images/s", ours, against, bare)


def step_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Measure microseconds of a step of a tiny network on one thread, with default logging and checkpoints."""
    num_train = 4 * settings.num_steps
    tiny: tuple[str, ...] = ("data=shapes", f"data.num_train={num_train + 40}", "data.num_test=40", "data.val_size=40")
    tiny += ("data.batch_size=4", "model.widths=[2,4]", "model.hidden=[8]", "threads=1")
    beside = ("trainer=cpu", f"{_BESIDE}benchmarks.bare_trainer.BesideBareTrainer")
    epochs = epochs_of(replace(settings, num_rounds=settings.num_step_rounds), train, *beside, *tiny)
    ours, bare, trainer = (
        tuple(1e6 * duration / epochs.num_steps for duration in seconds)
        for seconds in (epochs.ours, epochs.bare, epochs.trainer)
    )
    added, added_by_trainer = (tuple(map(operator.sub, steps, bare)) for steps in (ours, trainer))
    return [
        Row("step, tiny network", "µs", ours, BY_HAND, bare),
        Row("step, added by litlab", "µs", added, "added by a bare Trainer", added_by_trainer),
    ]


def epochs_of(settings: Settings, train: Train, *overrides: str) -> EpochSeconds:
    """Measure a whole run in a temporary folder."""
    with temporary_folder() as folder:
        epochs = f"trainer.max_epochs={1 + settings.num_rounds}"
        return epoch_seconds(train(folder / "run", _NO_TEST, epochs, *overrides))


def epoch_seconds(run: RunDirectory) -> EpochSeconds:
    """Read the record that `SideBySide` wrote."""
    record = run.read_json(run.path / RECORD)
    ours, bare, trainer = (tuple(record.get(name, ())[1:]) for name in ("litlab", "bare", "trainer"))
    return EpochSeconds(record["num_steps"], record["num_images"], ours, bare, trainer)
