"""What a default run costs: against a loop by hand of the same network, data path, optimizer and schedule."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bare import RECORD
from benchmarks.harness import Row, rates
from benchmarks.runs import Train, in_worker
from benchmarks.settings import Settings
from litlab.runs.directory import RunDirectory

_BARE = "a loop by hand"
ALWAYS = (
    "trainer=cpu",
    "+trainer.limit_test_batches=1",  # the test is not measured
    "+callbacks.side_by_side._target_=benchmarks.bare.SideBySide",
)


@dataclass(frozen=True)
class EpochSeconds:
    """Seconds of each epoch, without the first, which warms up; steps and images are those of one epoch."""

    num_steps: int
    num_images: int
    ours: tuple[float, ...]
    bare: tuple[float, ...]


def throughput_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Images per second of training, the default network, for each batch size and number of threads."""
    measured = []
    for batch_size in settings.batch_sizes:
        for threads in settings.threads:
            epochs = _measured(settings, train, *settings.data, f"data.batch_size={batch_size}", f"threads={threads}")
            ours, bare = (rates(epochs.num_images, seconds) for seconds in (epochs.ours, epochs.bare))
            name = f"training, batch {batch_size}, {threads} thread{'s' * (threads != 1)}"
            measured.append(Row(name, "images/s", ours, _BARE, bare))
    return measured


def step_rows(settings: Settings, train: Train = in_worker) -> list[Row]:
    """Microseconds of a step of a network that takes almost none, one thread; logging and checkpoints as by default."""
    num_train = 4 * settings.num_steps
    tiny: tuple[str, ...] = ("data=shapes", f"data.num_train={num_train + 40}", "data.num_test=40", "data.val_size=40")
    tiny += ("data.batch_size=4", "model.widths=[2,4]", "model.hidden=[8]", "threads=1")
    epochs = _measured(settings, train, *tiny)
    ours, bare = (tuple(1e6 * each / epochs.num_steps for each in every) for every in (epochs.ours, epochs.bare))
    overhead = tuple(a - b for a, b in zip(ours, bare, strict=True))
    return [
        Row("step, tiny network", "µs", ours, _BARE, bare),
        Row("step, added by litlab", "µs", overhead),
    ]


def _measured(settings: Settings, train: Train, *overrides: str) -> EpochSeconds:
    with TemporaryDirectory(prefix="litlab-bench-") as folder:
        epochs = f"trainer.max_epochs={1 + settings.num_rounds}"
        return epoch_seconds(train(Path(folder) / "run", *ALWAYS, epochs, *overrides))


def epoch_seconds(run: RunDirectory) -> EpochSeconds:
    """What `SideBySide` wrote down in a run."""
    record = run.read_json(run.path / RECORD)
    return EpochSeconds(
        record["num_steps"], record["num_images"], tuple(record["litlab"][1:]), tuple(record["bare"][1:])
    )
