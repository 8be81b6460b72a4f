"""Console output of a run: a summary, a progress bar, a table of results. Without a terminal, a few lines an epoch."""

import logging
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from litlab.data.module import ImageDataModule
from litlab.runs.directory import RunDirectory
from litlab.runs.metrics import Metric, read_metric_table
from litlab.runs.result import Result
from litlab.runs.terminal import display_path
from litlab.tasks.metrics import logged_metrics, logged_values

REFRESH_SECONDS = 0.2  # between two drawings of the progress bar
LINES_PER_EPOCH = 3  # without a terminal
_log = logging.getLogger("litlab")


class Console(Callback):
    """Print the progress of a run on rank zero, and write it to run.log.

    Args:
        run: Directory of the run.
        name: Name of the experiment.
        seed: Seed of the run.
        resumed: litlab's part of the checkpoint that the run resumes from, or None.
        silent: Write to run.log alone.
    """

    def __init__(
        self, *, run: RunDirectory, name: str, seed: int, resumed: dict[str, Any] | None, silent: bool
    ) -> None:
        self._run = run
        self._title = f"{name}, seed {seed}"
        self._resumed = resumed
        self._terminal = Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, quiet=silent)
        self._progress: Progress | None = None
        self._drawn = 0.0
        self._metrics: dict[str, Metric] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        if trainer.is_global_zero:
            for line in self._summary(trainer, pl_module):
                self._print(line)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the progress bar on a terminal."""
        self._metrics = logged_metrics(trainer)
        if trainer.is_global_zero and self._terminal.is_terminal:
            columns: list[ProgressColumn] = [
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                TextColumn("{task.percentage:3.0f} %"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[latest]}", markup=False),
            ]
            self._progress = Progress(*columns, console=self._terminal, auto_refresh=False)
            total = trainer.estimated_stepping_batches * trainer.accumulate_grad_batches
            self._progress.add_task("", total=None if total == float("inf") else total, latest="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh the progress bar, or print a line if one is due."""
        if self._progress is not None:
            if time.monotonic() - self._drawn > REFRESH_SECONDS:
                self._draw(trainer, pl_module)
        elif trainer.is_global_zero and _is_line_due(trainer, batch_idx):
            latest = self._latest(pl_module)
            if latest:
                self._print(f"{_epoch(trainer)} {batch_idx + 1}/{trainer.num_training_batches}  {latest}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of the validation."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._metrics = logged_metrics(trainer)  # torchmetrics objects of other tasks are known from now on
            self._print(f"{_epoch(trainer)} validation  {self._format(logged_values(trainer))}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the full progress bar."""
        if self._progress is not None:
            self._draw(trainer, pl_module)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._stop()

    def note(self, message: str) -> None:
        """Print a note for the user, above the progress bar."""
        self._print(f"note: {message}")

    def table(self, result: Result) -> None:
        """Print the result of a run: its metrics, its time, its directory and the command that shows it."""
        metrics = read_metric_table(self._run)
        columns = {"best validation": result.best, "last validation": result.last, "test": result.test}
        cells = {
            title: {Metric(name).quantity: metrics[name].format(value) for name, value in values.items()}
            for title, values in columns.items()
            if values
        }
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("metric")
        for title in cells:
            table.add_column(title, justify="right")
        for quantity in dict.fromkeys(quantity for column in cells.values() for quantity in column):
            table.add_row(quantity, *(column.get(quantity, "") for column in cells.values()))
        throughput = f", {result.images_per_second:,.0f} images/s" if result.images_per_second else ""
        self._terminal.print()
        self._terminal.print(table)
        self._terminal.print()
        seconds = sum(value for phase, value in result.seconds.items() if phase not in ("training", "saving"))
        directory = display_path(self._run.path)
        self._print(f"{_count(result.epochs, 'epoch')}, {_count(result.steps, 'step')} in {seconds:.1f} s{throughput}")
        self._print(f"run          {directory}")
        self._print(f"TensorBoard  litlab tensorboard {directory.parent}")

    def _summary(self, trainer: Trainer, task: LightningModule) -> list[str]:
        data = getattr(trainer, "datamodule", None)
        network = getattr(task, "network", task)
        lines = [f"litlab       {self._title}"]
        if isinstance(data, ImageDataModule):
            info = data.info
            c, h, w = info.image_shape
            sizes = f"{info.num_train:,} train, {info.num_val:,} validation, {info.num_test:,} test"
            lines.append(f"data         {info.name}: {sizes} images of {h}x{w}x{c}, {info.num_classes} classes")
        num_parameters = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f"network      {type(network).__name__}, {num_parameters:,} parameters")
        device = trainer.strategy.root_device.type
        ranks = f"{trainer.world_size} x {device}" if trainer.world_size > 1 else device
        epochs, threads = _count(trainer.max_epochs, "epoch"), _count(torch.get_num_threads(), "thread")
        lines.append(f"training     {ranks}, {trainer.precision}, {epochs}, {threads}")
        if self._resumed is not None:
            epoch, step = self._resumed["epoch"] + 1, self._resumed["step"]
            lines.append(f"resumes      in epoch {epoch}, after {_count(step, 'step')}")
        return lines

    def _draw(self, trainer: Trainer, task: LightningModule) -> None:
        assert self._progress is not None
        self._drawn = time.monotonic()
        num_batches = trainer.fit_loop.total_batch_idx + 1
        (task_id,) = self._progress.task_ids
        self._progress.update(task_id, completed=num_batches, description=_epoch(trainer), latest=self._latest(task))
        self._progress.refresh()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _print(self, line: str) -> None:
        _log.info(line)
        if self._progress is not None:
            self._progress.console.print(line)
        else:
            self._terminal.print(line)

    def _latest(self, task: LightningModule) -> str:
        """Format the newest training values that are known without waiting for the device."""
        latest = getattr(task, "latest", None)
        return self._format(latest) if isinstance(latest, dict) else ""

    def _format(self, values: dict[str, float]) -> str:
        texts = []
        for name, value in values.items():
            metric = self._metrics.get(name, Metric(name))
            texts.append(f"{metric.quantity.rpartition('/')[2].replace('_', ' ')} {metric.format(value)}")
        return "  ".join(texts)


def _epoch(trainer: Trainer) -> str:
    last = trainer.max_epochs
    if not last or last < 0:
        return f"epoch {trainer.current_epoch + 1}"
    return f"epoch {min(trainer.current_epoch + 1, last)}/{last}"  # after the last epoch, Lightning counts one more


def _is_line_due(trainer: Trainer, batch_idx: int) -> bool:
    total = trainer.num_training_batches
    if total == float("inf"):
        return (batch_idx + 1) % 1000 == 0
    return (batch_idx + 1) * LINES_PER_EPOCH // int(total) > batch_idx * LINES_PER_EPOCH // int(total)


def _count(number: int | None, noun: str) -> str:
    return f"{noun}s without end" if number in (None, -1) else f"{number:,} {noun}{'s' * (number != 1)}"
