"""Runs of LightningModules and data modules that do not import litlab."""

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader


def pair(task: str, data: str) -> tuple[str, ...]:
    """Return overrides for a task and a data module."""
    return (
        "~model", "~optimizer", "~schedule", "~data", f"+data._target_={data}", "~task", f"+task._target_={task}",
        "name=foreign", "trainer=cpu", "threads=1",
    )  # fmt: skip


class Numbers(LightningDataModule):
    """Four batches of two rows in each split."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(torch.arange(32.0).reshape(8, 4) / 32, batch_size=2)

    val_dataloader = test_dataloader = train_dataloader
