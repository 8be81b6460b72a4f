"""Data modules under a stand-in for the Trainer, and their training loaders."""

from types import SimpleNamespace
from typing import Any

import torch

from litlab.data.loader import BatchLoader
from litlab.data.module import ImageDataModule


def attach_trainer(module: ImageDataModule, task: Any = None, rank: int = 0, world_size: int = 1) -> None:
    """Set the attributes of a Trainer that a data module reads."""
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=task,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        global_rank=rank,
        world_size=world_size,
        max_epochs=4,
        current_epoch=0,
    )


def training_loader(module: ImageDataModule, epoch: int, rank: int = 0, world_size: int = 1) -> BatchLoader:
    """Return the training loader of one rank at the start of an epoch."""
    attach_trainer(module, rank=rank, world_size=world_size)
    loader = module.train_dataloader()
    loader.sampler.set_epoch(epoch)
    module.trainer = None
    return loader
