"""Position of the training loaders within an epoch, and the losses that they draw images by, restored on resume."""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import LightningDataModule, Trainer

from litlab.data.loss_table import LossTable, LossTableState
from litlab.data.module import ImageDataModule
from litlab.training.random_state import RandomState, get_random_state, set_random_state

LoaderRandomStates = dict[str, RandomState] | None


class LoaderState:
    """Move the training loaders to the batch that a run resumes from.

    litlab's loaders seek. They may draw the images of an epoch by the losses before it, which are restored.

    Others are read from the start of their epoch. These draw from the global generators, or from a `generator` of their
    own, when an epoch starts, and perhaps for each batch, so the random state of both moments is kept.

    Under `trainer.reload_dataloaders_every_n_epochs`, Lightning creates them again and again, which may draw, too.

    Attributes:
        random_states: State at the start of the `epoch` and of the next `batch`; None for loaders that seek.
    """

    def __init__(self) -> None:
        self.random_states: LoaderRandomStates = None
        self._before_creation: RandomState | None = None

    def record_creation(self, trainer: Trainer, rank: dict[str, Any] | None) -> None:
        """Record the random state before Lightning creates the training loaders, if it does so more than once.

        To be called in `on_fit_start`.

        Args:
            trainer: Trainer.
            rank: State of this rank that the run resumes from, to create the same loaders; None for a new run.
        """
        if not trainer.reload_dataloaders_every_n_epochs:  # type: ignore[attr-defined]  # Lightning gives it no type
            return
        loop, device = trainer.fit_loop, trainer.strategy.root_device
        setup_data = loop.setup_data

        def record() -> None:
            if loop._combined_loader is None and rank is not None and rank["creation"]["random"] is not None:
                set_random_state(rank["creation"]["random"], device)
            if loop._combined_loader is None or loop._should_reload_train_dl:
                self._before_creation = get_random_state(device)
            setup_data()

        loop.setup_data = record  # type: ignore[method-assign]

    def creation(self, trainer: Trainer) -> dict[str, Any]:
        """Return the random state before the loaders were created, and the epochs in which they were."""
        loop = trainer.fit_loop
        epochs = [loop._last_train_dl_reload_epoch, loop.epoch_loop.val_loop._last_val_dl_reload_epoch]
        return {"random": self._before_creation, "epochs": epochs}

    def losses(self, trainer: Trainer) -> LossTableState | None:
        """Return the losses that images are drawn by, `data.hard_fraction`; every rank has to call this."""
        table = _loss_table(trainer)
        return None if table is None else table.state()

    def start(self, trainer: Trainer) -> None:
        """Start the loaders in `on_train_start` of a new run."""
        if not _can_seek(trainer):
            self.start_epoch(trainer)
            _start_loaders(trainer, trainer.current_epoch, 0)
            self._record_each_batch(trainer)

    def resume(self, trainer: Trainer, saved: dict[str, Any], rank: dict[str, Any]) -> None:
        """Start the loaders in `on_train_start` of a resumed run, from `litlab` of its checkpoint."""
        seeks, loop = _can_seek(trainer), trainer.fit_loop
        loop._last_train_dl_reload_epoch, epoch_of_validation = rank["creation"]["epochs"]
        loop.epoch_loop.val_loop._last_val_dl_reload_epoch = epoch_of_validation
        if not seeks:
            self.random_states = rank["loaders"]
        if self.random_states is not None:
            _set_random_state(trainer, self.random_states["epoch"])
        elif saved["hook"] == "on_fit_end" and rank["random"] is not None:
            set_random_state(rank["random"], trainer.strategy.root_device)
        if (table := _loss_table(trainer)) is not None:
            table.set_state(saved["image_losses"])
        _start_loaders(trainer, saved["epoch"], saved["batch"])
        if self.random_states is not None and saved["hook"] == "on_train_batch_start":  # this batch is read next
            _set_random_state(trainer, self.random_states["batch"])
        if not seeks:
            self._record_each_batch(trainer)

    def start_epoch(self, trainer: Trainer) -> None:
        """Record the random state before Lightning starts the loaders: in `on_train_epoch_start`, or `on_fit_end`."""
        if not _can_seek(trainer):
            state = _get_random_state(trainer)
            self.random_states = {"epoch": state, "batch": state}

    def _record_each_batch(self, trainer: Trainer) -> None:
        loop = trainer.fit_loop.epoch_loop
        before_fetch = loop._on_before_fetch

        def record() -> None:
            assert self.random_states is not None
            self.random_states = self.random_states | {"batch": _get_random_state(trainer)}
            before_fetch()

        loop._on_before_fetch = record  # type: ignore[method-assign]


def _start_loaders(trainer: Trainer, epoch: int, batch: int) -> None:
    """Make Lightning's next training batch number `batch` of `epoch`, both counted from 0."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    # After a restart Lightning starts the validation loaders to count their batches, which may draw random numbers.
    trainer.fit_loop.epoch_loop.val_loop.increment_progress_to_evaluation_end = lambda: None  # type: ignore[method-assign]
    for loader in _train_loaders(trainer):
        _set_sampler_epoch(loader, epoch)
        if hasattr(loader, "seek"):
            loader.seek(batch)
    iter(fetcher)
    if not _can_seek(trainer):
        assert fetcher.iterator is not None
        for _ in range(batch):
            next(fetcher.iterator)


def _loss_table(trainer: Trainer) -> LossTable | None:
    data: LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # Lightning gives it no type
    return data.loss_table if isinstance(data, ImageDataModule) else None


def _get_random_state(trainer: Trainer) -> RandomState:
    states = [generator.get_state() for generator in _generators(trainer)]
    return get_random_state(trainer.strategy.root_device) | {"loaders": states}


def _set_random_state(trainer: Trainer, state: RandomState) -> None:
    set_random_state(state, trainer.strategy.root_device)
    generators = list(_generators(trainer))
    if len(generators) == len(state["loaders"]):  # on another number of ranks, Lightning's samplers have none
        for generator, generator_state in zip(generators, state["loaders"], strict=True):
            generator.set_state(generator_state)


def _generators(trainer: Trainer) -> Iterator[torch.Generator]:
    """Iterate over the generators that loaders and their samplers have of their own."""
    for loader in _train_loaders(trainer):
        batch_sampler = getattr(loader, "batch_sampler", None)
        for owner in (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)):
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                yield generator


def _can_seek(trainer: Trainer) -> bool:
    return all(hasattr(loader, "seek") for loader in _train_loaders(trainer))


def _train_loaders(trainer: Trainer) -> list[Any]:
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return list(combined.flattened)
