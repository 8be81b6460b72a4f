"""Console output of a run: a summary, a progress bar, a table of results. Without a terminal, a few lines an epoch."""

import logging
import time
from collections.abc import Sequence
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
from litlab.runs.terminal import display_path, format_clock, printable
from litlab.tasks.frozen_parameters import count_parameters
from litlab.tasks.image_classifier import ImageClassifier
from litlab.tasks.logged_metrics import logged_metrics, logged_values

REFRESH_SECONDS = 0.2  # between two drawings of the progress bar
LINES_PER_EPOCH = 3  # without a terminal
LOG_WIDTH = 200  # of the table in run.log
_log = logging.getLogger("litlab")


class Console(Callback):
    """Print the progress of a run on rank zero, and write it to run.log.

    Args:
        run: Directory of the run.
        name: Name of the experiment.
        seed: Seed of the run.
        resumed: litlab's part of the checkpoint that the run resumes from, or None.
        warm_start: Lines on the weights that the run starts from.
        silent: Write to run.log alone.
    """

    def __init__(
        self,
        *,
        run: RunDirectory,
        name: str,
        seed: int,
        resumed: dict[str, Any] | None,
        warm_start: Sequence[str],
        silent: bool,
    ) -> None:
        self._run = run
        self._warm_start = warm_start
        self._title = f"{name}, seed {seed}"
        self._resumed = resumed
        self._terminal = Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, quiet=silent)
        self._progress: Progress | None = None
        self._drawn = 0.0
        self._started, self._num_before = 0.0, 0  # time of the start, and the batches before it
        self._total: float | None = None  # batches of the whole training
        self._metrics: dict[str, Metric] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the summary."""
        if trainer.is_global_zero:
            for line in self._summary(trainer, pl_module):
                self._print(line)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and the progress bar on a terminal."""
        self._metrics = logged_metrics(trainer)
        self._started, self._num_before = time.monotonic(), _num_batches(trainer)
        self._total = _total_batches(trainer)
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
            self._progress.add_task("", total=self._total, latest="")
            self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Refresh the progress bar; print a line at the end of an epoch, and without a terminal within it."""
        if not trainer.is_global_zero:
            return
        if self._progress is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._draw(trainer, pl_module)
        if trainer.is_last_batch or (self._progress is None and _is_line_due(trainer, batch_idx)):
            latest = self._latest(trainer, pl_module)
            if latest:
                position = f"{_epoch(trainer)} {batch_idx + 1}/{trainer.num_training_batches}"
                self._print(f"{position}  {latest}{self._time_left(trainer)}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the metrics of the validation."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            self._metrics = logged_metrics(trainer)  # torchmetrics objects of other tasks are known from now on
            values = self._format(logged_values(trainer))
            self._print(f"{_epoch(trainer)} validation  {values}{self._time_left(trainer)}")

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
        self._print(printable(f"note: {message}"))  # it may quote a checkpoint

    def table(self, result: Result, *, has_tensorboard: bool) -> None:
        """Print the result of a run: its metrics, its times, its directory and the command that shows it, if any."""
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
        for line in _plain_lines(table):
            _log.info(line)
        self._terminal.print()
        self._terminal.print(table)
        self._terminal.print()
        throughput = f", {result.images_per_second:,.0f} images/s" if result.images_per_second else ""
        training = f"training {result.seconds['training']:.1f} s{throughput}"
        seconds = sum(value for phase, value in result.seconds.items() if phase not in ("training", "saving"))
        whole = f"{seconds:.1f} s {'in all' if self._resumed is None else 'since it was resumed'}"
        directory = display_path(self._run.path)
        self._print(f"{_count(result.epochs, 'epoch')}, {_count(result.steps, 'step')}: {training}; {whole}")
        self._print(f"run          {directory}")
        if has_tensorboard:
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
        requires_grad = self._resumed["modules"]["requires_grad"] if self._resumed is not None else None
        total, trainable = count_parameters(network, task, requires_grad)
        frozen = f", {trainable:,} of them trainable" if trainable < total else ""
        lines.append(f"network      {type(network).__name__}, {total:,} parameters{frozen}")
        lines += self._warm_start
        if isinstance(task, ImageClassifier) and (loss := str(task.loss)):
            lines.append(f"loss         {loss}")
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
        (task_id,) = self._progress.task_ids
        num_batches, latest = _num_batches(trainer), self._latest(trainer, task)
        self._progress.update(task_id, completed=num_batches, description=_epoch(trainer), latest=latest)
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

    def _time_left(self, trainer: Trainer) -> str:
        """Estimate the time left by the pace since the start; empty where the bar shows it, or nothing is known."""
        num_batches = _num_batches(trainer)
        if self._progress is not None or self._total is None or num_batches >= self._total:
            return ""
        pace = (time.monotonic() - self._started) / max(num_batches - self._num_before, 1)  # seconds a batch
        return f"  {format_clock(pace * (self._total - num_batches))} left"

    def _latest(self, trainer: Trainer, task: LightningModule) -> str:
        """Format the newest training values of this epoch: `latest` of a task, else what it logs with `prog_bar`."""
        latest, connector = getattr(task, "latest", None), trainer._logger_connector
        if not isinstance(latest, dict):  # outside of batches, other ranks would have to compute the values as well
            latest = connector.metrics["pbar"] if trainer.training and connector._first_loop_iter is not None else {}
        return self._format(latest)

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


def _num_batches(trainer: Trainer) -> int:
    """Return the number of training batches so far."""
    return int(trainer.fit_loop.total_batch_idx) + 1


def _total_batches(trainer: Trainer) -> float | None:
    """Return the number of training batches of the whole training; None if there is no limit."""
    num_epochs, num_steps = trainer.max_epochs, trainer.max_steps
    limits = [trainer.num_training_batches * num_epochs] if num_epochs and num_epochs > 0 else []
    limits += [num_steps * trainer.accumulate_grad_batches] if num_steps > 0 else []
    total = min(limits, default=float("inf"))
    return None if total == float("inf") else total


def _plain_lines(table: Table) -> list[str]:
    """Return the lines of a table for a file."""
    plain = Terminal(width=LOG_WIDTH, color_system=None, markup=False, emoji=False, highlight=False)
    with plain.capture() as captured:
        plain.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _is_line_due(trainer: Trainer, batch_idx: int) -> bool:
    total = trainer.num_training_batches
    if total == float("inf"):
        return (batch_idx + 1) % 1000 == 0
    return (batch_idx + 1) * LINES_PER_EPOCH // int(total) > batch_idx * LINES_PER_EPOCH // int(total)


def _count(number: int | None, noun: str) -> str:
    return f"{noun}s without end" if number in (None, -1) else f"{number:,} {noun}{'s' * (number != 1)}"
