"""A default run of litlab against the usual Lightning set-up: same images, network and epochs, whole processes."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import in_memory, usual_lightning
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved, rates
from benchmarks.recipes import Outcome, run
from benchmarks.runs import program
from benchmarks.settings import Settings

EPOCHS = 2
_AGAINST = "the usual Lightning set-up, 2 workers"


def rows(settings: Settings) -> list[Row]:
    """Both train the tutorial CNN, validate each epoch and test the best checkpoint."""
    found: dict[str, list[Outcome]] = {"litlab": [], "usual": []}
    with TemporaryDirectory(prefix="litlab-bench-") as folder:
        data = prepared(*settings.data)
        in_memory.save(data, Path(folder), num_val=len(data.val_indices))
        contenders: dict[str, Callable[[], object]] = {
            "litlab": lambda: found["litlab"].append(litlab(settings)),
            "usual": lambda: found["usual"].append(usual(settings, Path(folder))),
        }
        interleaved(contenders, num_warmup=0, num_rounds=settings.num_multiruns)
    ours, theirs = (
        (
            rates(EPOCHS * len(data.train_indices), [each.training for each in every]),
            tuple(each.seconds for each in every),
        )
        for every in found.values()
    )
    name = f"default run, batch {settings.batch_sizes[0]}, {EPOCHS} epochs"
    return [
        Row(f"{name}: training", "images/s", ours[0], _AGAINST, theirs[0]),
        Row(f"{name}: whole process", "s", ours[1], _AGAINST, theirs[1]),
    ]


def litlab(settings: Settings) -> Outcome:
    """`litlab train` with everything a default run has on."""
    return run(
        *settings.data, f"data.batch_size={settings.batch_sizes[0]}", f"trainer.max_epochs={EPOCHS}", "trainer=cpu"
    )


def usual(settings: Settings, arrays: Path) -> Outcome:
    """Run `benchmarks.usual_lightning` on the same images; hide what it prints."""
    began = time.perf_counter()
    program("usual_lightning", arrays, EPOCHS, settings.batch_sizes[0])
    seconds = time.perf_counter() - began
    record = json.loads((arrays / usual_lightning.RECORD).read_text())
    return Outcome(record["accuracy"], seconds, record["training"])
