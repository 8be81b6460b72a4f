"""What a run says: a summary, one progress bar, a table. Without a terminal: plain lines, a few an epoch."""

import logging
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console as Terminal
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from litlab.data.module import ImageDataModule
from litlab.runs.directory import RunDirectory
from litlab.runs.result import Result

REFRESH = 0.2  # seconds between two drawings of the bar
LINES = 3  # plain lines an epoch, without a terminal
_log = logging.getLogger("litlab")


class Console(Callback):
    """Speaks on rank zero; the others stay silent. What it says goes to run.log as well."""

    def __init__(
        self, *, run: RunDirectory, name: str, seed: int, resumed: dict[str, Any] | None, silent: bool
    ) -> None:
        """Args:
        resumed: litlab's part of the checkpoint that the run goes on from.
        silent: whether only run.log gets what it says.
        """
        self._run = run
        self._title = f"{name}, seed {seed}"
        self._resumed = resumed
        self._terminal = Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, quiet=silent)
        self._progress: Progress | None = None
        self._drawn = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            for line in self._summary(trainer, pl_module):
                self._say(line)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self._terminal.is_terminal:
            columns: list[ProgressColumn] = [
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
            ]
            columns += [
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
        if self._progress is not None:
            if time.monotonic() - self._drawn > REFRESH:
                self._draw(trainer, pl_module)
        elif trainer.is_global_zero and self._is_time_for_a_line(trainer, batch_idx):
            latest = _latest(pl_module)
            if latest:
                self._say(f"{self._epoch(trainer)} {batch_idx + 1}/{trainer.num_training_batches}  {latest}")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            values = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val")}
            self._say(f"{self._epoch(trainer)} validation  {_shown(values)}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._progress is not None:
            self._draw(trainer, pl_module)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def table(self, result: Result) -> None:
        """The end of a run: its metrics, its time, where it is and how to look at it."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        columns = {"best validation": result.best, "last validation": result.last, "test": result.test}
        shown = {title: _by_metric(values) for title, values in columns.items() if values}
        for title in ("metric", *shown):
            table.add_column(title, justify="left" if title == "metric" else "right")
        for metric in dict.fromkeys(metric for values in shown.values() for metric in values):
            cells = (_number(metric, values[metric]) if metric in values else "" for values in shown.values())
            table.add_row(metric, *cells)
        speed = f", {result.images_per_second:,.0f} images/s" if result.images_per_second else ""
        self._terminal.print()
        self._terminal.print(table)
        self._terminal.print()
        seconds = sum(value for phase, value in result.seconds.items() if phase not in ("training", "saving"))
        directory = _relative(self._run.path)
        self._say(f"{_count(result.epochs, 'epoch')}, {_count(result.steps, 'step')} in {seconds:.1f} s{speed}")
        self._say(f"run          {directory}")
        self._say(f"TensorBoard  litlab tensorboard {directory.parent}")

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
            lines.append(f"goes on      in epoch {epoch}, after {_count(step, 'step')}")
        return lines

    def _draw(self, trainer: Trainer, task: LightningModule) -> None:
        assert self._progress is not None
        self._drawn = time.monotonic()
        batches = trainer.fit_loop.total_batch_idx + 1
        number = self._progress.task_ids[0]
        self._progress.update(number, completed=batches, description=self._epoch(trainer), latest=_latest(task))
        self._progress.refresh()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _say(self, line: str) -> None:
        _log.info(line)
        if self._progress is not None:
            self._progress.console.print(line)
        else:
            self._terminal.print(line)

    @staticmethod
    def _epoch(trainer: Trainer) -> str:
        last = trainer.max_epochs
        if not last or last < 0:
            return f"epoch {trainer.current_epoch + 1}"
        return f"epoch {min(trainer.current_epoch + 1, last)}/{last}"  # after the last epoch, Lightning counts one more

    @staticmethod
    def _is_time_for_a_line(trainer: Trainer, batch_idx: int) -> bool:
        total = trainer.num_training_batches
        if total == float("inf"):
            return (batch_idx + 1) % 1000 == 0
        return (batch_idx + 1) * LINES // int(total) > batch_idx * LINES // int(total)


def _latest(task: LightningModule) -> str:
    """The newest training values that are known without asking the device."""
    latest = getattr(task, "latest", {})
    return _shown({name: value for name, value in latest.items() if name != "lr"}) if isinstance(latest, dict) else ""


def _shown(values: dict[str, float]) -> str:
    return "  ".join(
        f"{name.rpartition('/')[2].replace('_', ' ')} {_number(name, value)}" for name, value in values.items()
    )


def _count(number: int | None, what: str) -> str:
    return f"{what}s without end" if number in (None, -1) else f"{number:,} {what}{'s' * (number != 1)}"


def _number(name: str, value: float) -> str:
    if "accuracy" in name:
        return f"{100 * value:.2f} %"
    return f"{value:,.0f}" if "per_second" in name else f"{value:.4f}"


def _by_metric(values: dict[str, float]) -> dict[str, float]:
    """Without the split in front: `val/accuracy` and `test/accuracy` are one row."""
    return {name.partition("/")[2] or name: value for name, value in values.items()}


def _relative(path: Path) -> Path:
    """As one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
