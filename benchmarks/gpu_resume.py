"""Runs that are stopped and resumed on a GPU, value by value against the same runs without a stop."""

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, Trainer
from torch import Tensor

from benchmarks.harness import Row, temporary_folder
from benchmarks.runs import compose_config, new_run, work
from benchmarks.settings import Settings
from litlab.process.signals import exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Row as MetricRow
from litlab.runs.metrics import read_metrics
from litlab.training.checkpoint_io import read_network_weights

AGAINST = "all of the run without a stop"
_STOP = ("+callbacks.stop._target_=benchmarks.gpu_resume.StopsItself", "+callbacks.stop.at_step=")
# Deterministic, since two runs would differ otherwise, resumed or not.
COMMON = (
    "trainer=gpu", "trainer.deterministic=true", "trainer.max_epochs=2", "trainer.log_every_n_steps=5",
    "model=resnet18", "model.width=16", "data=shapes", "data.num_test=256", "data.val_size=256", "data.batch_size=128",
)  # fmt: skip
SCENARIOS = {
    "bf16-mixed": ("trainer.precision=bf16-mixed", "task.channels_last=true"),
    "16-mixed": ("trainer.precision=16-mixed", "task.channels_last=true"),
    "bf16-mixed, compile, DDP": ("trainer.precision=bf16-mixed", "task.compile=true", "trainer.strategy=ddp"),
}
STEPS_PER_EPOCH = 30
STOP_AT = 40  # in the second epoch


class StopsItself(Callback):
    """Send the process a SIGTERM after an optimizer step; a resumed run begins after that step.

    Args:
        at_step: Number of the step; 0 for none.
    """

    def __init__(self, at_step: int) -> None:
        self._at_step = at_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self._at_step:
            os.kill(os.getpid(), signal.SIGTERM)


def rows(settings: Settings) -> list[Row]:
    """Count the weights and logged values that differ after a resume, in each precision."""
    data = f"data.num_train={128 * STEPS_PER_EPOCH + 256}"
    return [row for name, overrides in SCENARIOS.items() for row in scenario_rows(name, (*COMMON, data, *overrides))]


def scenario_rows(name: str, overrides: tuple[str, ...], work: Callable[[RunDirectory], int] = work) -> list[Row]:
    """Train one run to its end, stop another one and resume it, and compare both."""
    with temporary_folder() as folder:
        whole = new_run(folder / "whole", compose_config(*overrides, *stop(0)))
        stopped = new_run(folder / "stopped", compose_config(*overrides, *stop(STOP_AT)))
        codes = [work(run) for run in (whole, stopped, stopped)]
        assert codes == [0, exit_code(signal.SIGTERM), 0], codes
        return [
            Row(f"GPU: resume, {name}: {what} that differ", "", (float(differing),), AGAINST, (float(total),))
            for what, (differing, total) in (
                ("weights", differing_weights(*(read_network_weights(run.last) for run in (whole, stopped)))),
                ("logged values", differing_values(*(read_metrics(run.metrics) for run in (whole, stopped)))),
            )
        ]


def stop(step: int) -> tuple[str, str]:
    """Return the overrides of a run that stops itself after a step; 0 for none."""
    target, at_step = _STOP
    return target, f"{at_step}{step}"


def differing_weights(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> tuple[int, int]:
    """Count the weights that differ, and all of them; NaN equals NaN."""
    assert left.keys() == right.keys()
    masks = [(left[name] != right[name]) & ~(left[name].isnan() & right[name].isnan()) for name in left]
    return sum(int(mask.sum()) for mask in masks), sum(mask.numel() for mask in masks)


def differing_values(left: Iterable[MetricRow], right: Iterable[MetricRow]) -> tuple[int, int]:
    """Count the logged values that differ or that only one run has, and all of them, without the throughput."""
    values = [
        {(row.metric, row.step): repr(row.value) for row in rows if not row.metric.startswith("throughput")}
        for rows in (left, right)
    ]
    return len(dict(values[0].items() ^ values[1].items())), len(values[0] | values[1])
