"""Small runs, and the comparison of how they end."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.exact_resume import differences, new_run, outcome
from support.hparams_page import sessions
from support.runs import NO_PICTURES
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.runs.result import read_result
from litlab.runs.signature import sign

# Shuffling, augmentation, dropout, batch norm, one cycle, a short last batch; 6 + 2 batches an epoch, 3 of test.
SMALL = (
    "data=shapes", "data.num_train=60", "data.num_test=24", "data.val_size=16", "data.batch_size=8",
    "model._target_=reliability.faults.Faulty", "~model.widths", "~model.hidden",
    *NO_PICTURES,
    "+callbacks.watch._target_=reliability.faults.Watch",
    "trainer.accelerator=cpu", "trainer.max_epochs=2", "trainer.log_every_n_steps=3", "threads=1",
)  # fmt: skip
EVERY_2 = (*SMALL, "checkpoint.every_steps=2")
BATCHES = 6  # of training, in an epoch

Events = dict[tuple[str, int], list[bytes]]


@dataclass(frozen=True)
class Reference:
    """Outcome of an uninterrupted run.

    Attributes:
        run: Run directory.
        outcome: Checkpoints, rows and result.
        events: TensorBoard events.
        seen: Lines that `Watch` wrote, by rank.
    """

    run: RunDirectory
    outcome: dict[str, Any]
    events: Events
    seen: dict[str, list[str]]

    @classmethod
    def of(cls, run: RunDirectory) -> "Reference":
        """Read the outcome of a run."""
        return cls(run, outcome(run), events(run.path), seen(run))

    def assert_equal(self, run: RunDirectory) -> None:
        """Check that a run ended equal to the bit, with each row and event once and no temporary files."""
        assert read_result(run)["status"] == "completed"
        assert [row.status for row in sessions(run.path).values()] == ["STATUS_SUCCESS"]
        logged = events(run.path)
        different = [f"left behind: {path}" for path in run.path.rglob("*.tmp")]
        different += [f"{key} comes {len(values)} times" for key, values in logged.items() if len(values) != 1]
        different += differences(self.outcome, outcome(run)) + differences(self.events, logged)
        assert not different, "\n".join(different[:20])


GetReference = Callable[..., Reference]  # overrides -> outcome of an uninterrupted run


def small_run(path: Path, *overrides: str) -> RunDirectory:
    """Create a run directory as `litlab train` does."""
    run, _ = new_run(path, *overrides)
    write_json(run.provenance, {"project": str(Path(__file__).parents[1])})
    sign(run)
    return run


def seen(run: RunDirectory) -> dict[str, list[str]]:
    """Read the lines that `Watch` wrote, by rank."""
    return {path.name: path.read_text().splitlines() for path in sorted(run.path.glob("seen.*"))}


def events(directory: Path) -> Events:
    """Read what was logged at each tag and step of all event files, without speeds and times.

    The number of the epoch is left out, since it comes with every row, so at some steps more than once.
    """
    contents: Events = {}
    for file in sorted(directory.glob("events.out.tfevents.*")):
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if not value.tag.startswith("throughput") and value.tag != "epoch":
                    content = value.tensor.SerializeToString(deterministic=True)
                    contents.setdefault((value.tag, event.step), []).append(content)
    return contents
