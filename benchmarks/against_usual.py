"""A default run of litlab against the usual Lightning set-up: same images, network and epochs, whole processes."""

from collections.abc import Callable

from benchmarks import in_memory
from benchmarks.data_path import prepared
from benchmarks.harness import Row, interleaved, rates, temporary_folder
from benchmarks.recipes import Outcome, run, run_program
from benchmarks.settings import Settings

EPOCHS = 2
_AGAINST = "the usual Lightning set-up, 2 workers"


def rows(settings: Settings) -> list[Row]:
    """Measure whole trainings of the tutorial CNN, with validation in each epoch and a test of the best checkpoint."""
    measured: dict[str, list[Outcome]] = {"litlab": [], "usual": []}
    with temporary_folder() as folder:
        data = prepared(*settings.data)
        in_memory.save(data, folder, num_val=len(data.val_indices))
        contenders: dict[str, Callable[[], object]] = {
            "litlab": lambda: measured["litlab"].append(litlab(settings)),
            "usual": lambda: measured["usual"].append(
                run_program("usual_lightning", folder, EPOCHS, settings.batch_sizes[0])
            ),
        }
        interleaved(contenders, num_warmup=0, num_rounds=settings.num_multiruns)
    speeds, seconds = {}, {}
    for name, outcomes in measured.items():
        speeds[name] = rates(EPOCHS * len(data.train_indices), [outcome.training for outcome in outcomes])
        seconds[name] = tuple(outcome.seconds for outcome in outcomes)
    title = f"default run, batch {settings.batch_sizes[0]}, {EPOCHS} epochs"
    return [
        Row(f"{title}: training", "images/s", speeds["litlab"], _AGAINST, speeds["usual"]),
        Row(f"{title}: whole process", "s", seconds["litlab"], _AGAINST, seconds["usual"]),
    ]


def litlab(settings: Settings) -> Outcome:
    """`litlab train` with everything a default run has on."""
    return run(
        *settings.data, f"data.batch_size={settings.batch_sizes[0]}", f"trainer.max_epochs={EPOCHS}", "trainer=cpu"
    )
