"""Loaders that cannot seek: a resumed run reads the batches of an uninterrupted one."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import CombinedLoader
from reliability.runs import SMALL, seen
from support.exact_resume import differences, new_run, outcome, stop_and_resume, train_until
from support.foreign import Numbers, pair
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Subset, TensorDataset

from litlab.training.loader_state import _get_random_state, _set_random_state

OVERRIDES = (
    *SMALL, "data._target_=reliability.faults.Shuffled", "data.num_workers=0", "trainer.val_check_interval=3",
)  # fmt: skip


@pytest.mark.integrations
def test_batches_of_a_torch_loader_after_a_resume(tmp_path: Path) -> None:
    whole, config = new_run(tmp_path / "whole", *OVERRIDES)
    train_until(whole, config, None)
    for number in (3, 5, 11):  # within an epoch, in a validation, at the start of the second epoch
        run = stop_and_resume(tmp_path / f"stopped-{number}", number, *OVERRIDES)
        assert set(seen(run)["seen.0"]) == set(seen(whole)["seen.0"])
        assert differences(outcome(whole), outcome(run)) == []


class RandomHalves(Numbers):
    """Draws the training rows whenever its loader is created."""

    def train_dataloader(self) -> DataLoader[Tensor]:
        rows = torch.randperm(8)[:4].tolist()
        return DataLoader(Subset(super().train_dataloader().dataset, rows), batch_size=2, shuffle=True)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The number of training batches")
def test_loaders_that_are_created_every_two_epochs(tmp_path: Path) -> None:
    overrides = (
        *pair("training.test_foreign_module.Complete", "training.test_loader_state.RandomHalves"), "objective=null",
        "+trainer.reload_dataloaders_every_n_epochs=2", "trainer.max_epochs=5",
    )  # fmt: skip
    whole, config = new_run(tmp_path / "whole", *overrides)
    train_until(whole, config, None)
    run = stop_and_resume(tmp_path / "run", 19, *overrides)  # before the fourth epoch of 2 + 4 batches
    assert differences(outcome(whole), outcome(run)) == []


def test_generators_of_loaders_on_another_number_of_ranks() -> None:
    """Lightning's sampler of several ranks has no generator, so the state of the one that it replaced is not used."""
    trainer, dataset = Trainer(accelerator="cpu", logger=False), TensorDataset(torch.arange(4))
    generator = torch.Generator().manual_seed(1)
    trainer.fit_loop._combined_loader = CombinedLoader(DataLoader(dataset, shuffle=True, generator=generator))
    state = _get_random_state(trainer)
    sampler = DistributedSampler(dataset, num_replicas=2, rank=0)
    other = DataLoader(dataset, sampler=sampler, generator=torch.Generator().manual_seed(2))
    trainer.fit_loop._combined_loader = CombinedLoader(other)
    _set_random_state(trainer, state)
    assert other.generator.initial_seed() == 2
    drawn = torch.rand(1)
    trainer.fit_loop._combined_loader = CombinedLoader(DataLoader(dataset, shuffle=True, generator=generator))
    generator.manual_seed(3)
    _set_random_state(trainer, state)
    assert torch.equal(torch.rand(1), drawn), "the generators of the process are set in both cases"
    assert generator.initial_seed() == 1
