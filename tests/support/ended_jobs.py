"""Jobs of a study that have ended, without training."""

from pathlib import Path
from typing import Any

from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, MetricsWriter
from litlab.runs.state import RunStatus
from litlab.sweep.backends.base import Job
from litlab.sweep.outcome import Outcome

CONFIG: dict[str, Any] = {
    "trainer": {"max_epochs": 10},
    "objective": {"metric": "val/accuracy", "mode": "max"},
}
METRICS = {"val/accuracy": Metric("val/accuracy", unit="%", mode="max")}


def job(folder: Path, name: str, *epochs: float) -> Job:
    """Create a run directory with a validation for each value."""
    run = RunDirectory(folder / name)
    run.path.mkdir(parents=True)
    writer = MetricsWriter(run.metrics)
    for epoch, value in enumerate(epochs):
        writer.append(epoch, 100 * (epoch + 1), {"train/loss": 1.0, "val/accuracy": value}, METRICS)
    writer.close()
    return Job(int(name[:4]), run, CONFIG)


def succeeded(objective: float, seconds: float = 60) -> Outcome:
    return Outcome(RunStatus.COMPLETED, "", (), {"objective": objective}, seconds)


def failed(message: str, *log: str) -> Outcome:
    return Outcome(RunStatus.FAILED, message, log, {}, 1.0)
