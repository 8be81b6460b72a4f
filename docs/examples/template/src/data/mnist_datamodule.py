"""LightningDataModule of MNIST, as in projects made from lightning-hydra-template."""

from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import ConcatDataset, DataLoader, Dataset, random_split
from torchvision import transforms
from torchvision.datasets import MNIST


class MNISTDataModule(LightningDataModule):
    """MNIST, whose two official splits are joined and split anew.

    Args:
        data_dir: Folder of the data, which are downloaded if it lacks them.
        train_val_test_split: Number of images of each split.
        batch_size: Images of a batch on each device.
        num_workers: Processes that load images.
    """

    def __init__(
        self,
        data_dir: str = "data/",
        train_val_test_split: tuple[int, int, int] = (55_000, 5_000, 10_000),
        batch_size: int = 64,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(logger=False)
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
        self.splits: list[Dataset[Any]] = []

    def prepare_data(self) -> None:
        """Download the data, in one process."""
        MNIST(self.hparams.data_dir, train=True, download=True)
        MNIST(self.hparams.data_dir, train=False, download=True)

    def setup(self, stage: str | None = None) -> None:
        """Split the images, by a seed of its own."""
        if self.splits:
            return
        both = [MNIST(self.hparams.data_dir, train=train, transform=self.transform) for train in (True, False)]
        lengths = list(self.hparams.train_val_test_split)
        generator = torch.Generator().manual_seed(42)
        self.splits = list(random_split(ConcatDataset(both), lengths, generator=generator))

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the shuffled loader of the training images."""
        return self._loader(0, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the validation images."""
        return self._loader(1)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the loader of the test images."""
        return self._loader(2)

    def _loader(self, number: int, shuffle: bool = False) -> DataLoader[Any]:
        batch_size, num_workers = self.hparams.batch_size, self.hparams.num_workers
        return DataLoader(self.splits[number], batch_size=batch_size, num_workers=num_workers, shuffle=shuffle)
