"""The place in the epoch: where the training data go on."""

from typing import Any

from lightning.fabric.utilities.data import _set_sampler_epoch
from lightning.pytorch import Trainer


def seeks(trainer: Trainer) -> bool:
    """Whether all training loaders can be told where to start, as litlab's can."""
    return all(hasattr(loader, "seek") for loader in _loaders(trainer))


def begin(trainer: Trainer, epoch: int, batch: int) -> None:
    """Make Lightning's next training batch number `batch` of `epoch`, both counted from 0.

    A loader that cannot seek is read from the start of its epoch; what it draws at random, it draws from the global
    generators, which have to be as they were then.
    """
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    # After a restart Lightning starts the validation loaders to count their batches, which may draw random numbers.
    trainer.fit_loop.epoch_loop.val_loop.increment_progress_to_evaluation_end = lambda: None  # type: ignore[method-assign]
    for loader in _loaders(trainer):
        _set_sampler_epoch(loader, epoch)
        if hasattr(loader, "seek"):
            loader.seek(batch)
    iter(fetcher)
    if not seeks(trainer):
        assert fetcher.iterator is not None
        for _ in range(batch):
            next(fetcher.iterator)


def _loaders(trainer: Trainer) -> list[Any]:
    combined = trainer.fit_loop._combined_loader
    assert combined is not None
    return list(combined.flattened)
