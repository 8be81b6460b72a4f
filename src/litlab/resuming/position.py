"""The place in the epoch: where the training data go on."""

from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Trainer

from litlab.resuming.random_state import State, random_state, set_random_state


class Position:
    """Puts the training loaders where they were.

    litlab's own seek. Others are read from the start of their epoch, and what they draw at random, they draw from the
    global generators: when an epoch starts, and perhaps for each batch. So for these the random state of both is noted.

    Attributes:
        state: `epoch` and `batch`, random states; None for loaders that seek.
    """

    def __init__(self) -> None:
        self.state: dict[str, State] | None = None

    def start(self, trainer: Trainer) -> None:
        """In `on_train_start` of a run that begins."""
        if not _seek(trainer):
            self.epoch_starts(trainer)
            _begin(trainer, trainer.current_epoch, 0)
            self._note_each_batch(trainer)

    def restart(self, trainer: Trainer, part: dict[str, Any], own: dict[str, Any]) -> None:
        """In `on_train_start` of a run that goes on; `own` is this rank's part of the checkpoint's."""
        device, seek = trainer.strategy.root_device, _seek(trainer)
        state = {"epoch": own["random"], "batch": own["random"]} if part["at"] == "end" else own["loaders"]
        self.state = None if seek else state
        if self.state is not None:
            set_random_state(self.state["epoch"], device)
        _begin(trainer, part["epoch"], part["batch"])
        if self.state is not None and part["at"] == "batch":  # this batch is read next
            set_random_state(self.state["batch"], device)
        if not seek:
            self._note_each_batch(trainer)

    def epoch_starts(self, trainer: Trainer) -> None:
        """In `on_train_epoch_start`, after which Lightning starts the loaders."""
        if not _seek(trainer):
            now = random_state(trainer.strategy.root_device)
            self.state = {"epoch": now, "batch": now}

    def _note_each_batch(self, trainer: Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop
        lightnings = loop._on_before_fetch

        def note() -> None:
            assert self.state is not None
            self.state = self.state | {"batch": random_state(trainer.strategy.root_device)}
            lightnings()

        loop._on_before_fetch = note  # type: ignore[method-assign]


def _seek(trainer: Trainer) -> bool:
    return all(hasattr(loader, "seek") for loader in _loaders(trainer))


def _begin(trainer: Trainer, epoch: int, batch: int) -> None:
    """Make Lightning's next training batch number `batch` of `epoch`, both counted from 0."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    # After a restart Lightning starts the validation loaders to count their batches, which may draw random numbers.
    trainer.fit_loop.epoch_loop.val_loop.increment_progress_to_evaluation_end = lambda: None  # type: ignore[method-assign]
    for loader in _loaders(trainer):
        _set_sampler_epoch(loader, epoch)
        if hasattr(loader, "seek"):
            loader.seek(batch)
    iter(fetcher)
    if not _seek(trainer):
        assert fetcher.iterator is not None
        for _ in range(batch):
            next(fetcher.iterator)


def _loaders(trainer: Trainer) -> list[Any]:
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return list(combined.flattened)
