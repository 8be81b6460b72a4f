"""Images drawn by their last loss: the probabilities, the first epochs, and the state."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from litlab.data.loader import EpochSampler, MemoryLoader
from litlab.data.loss_table import LossTable

CPU = torch.device("cpu")
ROWS = torch.arange(0, 2000, 2)  # every other row of the split
LOSSES = torch.linspace(-1, 8, 1000)  # ascending in the row; a loss of one's own may be negative


def table_with(losses: Tensor, fraction: float = 0.5) -> LossTable:
    """Return a table at the start of epoch 1 in which all of `ROWS` have a loss."""
    table = LossTable(2000, fraction, CPU)
    table.record(ROWS, losses)
    table.start_epoch(1)
    return table


def draw_many(table: LossTable, num_epochs: int = 100) -> np.ndarray:
    """Return how often each of `ROWS` is drawn."""
    drawn = [table.draw(ROWS, seed=3, epoch=epoch) for epoch in range(num_epochs)]
    return (torch.cat(drawn).bincount(minlength=2000)[ROWS] / num_epochs).numpy()


def expected_probabilities(weights: np.ndarray, number: int) -> np.ndarray:
    """Find the c for which min(1, c * weight) sums up to the number that is drawn."""
    low, high = 0.0, number / weights.min()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(1, middle * weights).sum() < number else (low, middle)
    return np.minimum(1, low * weights)


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_probabilities_are_those_of_the_weights(fraction: float) -> None:
    probabilities = draw_many(table_with(LOSSES, fraction))
    assert probabilities.sum() == pytest.approx(1000 * fraction)
    weights = 1 + 9 * np.arange(1, 1001) / 1000
    expected = expected_probabilities(weights, round(1000 * fraction))
    deviations = np.sqrt(expected * (1 - expected) / 100)
    assert (np.abs(probabilities - expected) <= 5 * deviations + 0.03).all()
    tenths, expected_tenths = (values.reshape(10, 100).mean(axis=1) for values in (probabilities, expected))
    assert tenths == pytest.approx(expected_tenths, abs=0.02)
    assert probabilities[:100].min() > 0, "easy images come now and then"


def test_a_draw_depends_on_the_order_of_the_losses_alone() -> None:
    drawn = table_with(LOSSES).draw(ROWS, seed=3, epoch=7)
    assert torch.equal(table_with(5 * LOSSES.exp()).draw(ROWS, seed=3, epoch=7), drawn)
    assert not torch.equal(table_with(LOSSES.flip(0)).draw(ROWS, seed=3, epoch=7), drawn)


def test_equal_losses_are_drawn_uniformly() -> None:
    """Hinge losses of most images are exactly zero."""
    assert draw_many(table_with(torch.zeros(1000))) == pytest.approx(np.full(1000, 0.5), abs=0.25)  # 5 deviations


@pytest.mark.parametrize("fraction", [0.3, 0.5, 0.75])
def test_images_without_a_loss_come_first(fraction: float) -> None:
    table, visited, number = LossTable(2000, fraction, CPU), set[int](), round(1000 * fraction)
    for epoch in range(math.ceil(1 / fraction)):
        table.start_epoch(epoch)
        drawn = table.draw(ROWS, seed=0, epoch=epoch)
        assert len(set(drawn.tolist())) == number
        assert set(drawn.tolist()) <= set(ROWS.tolist())
        num_new = len(set(drawn.tolist()) - visited)
        assert num_new == min(number, 1000 - len(visited))
        visited |= set(drawn.tolist())
        table.record(drawn, drawn.float())
    assert len(visited) == 1000


def test_a_draw_is_a_function_of_losses_seed_and_epoch() -> None:
    drawn = table_with(LOSSES).draw(ROWS, seed=3, epoch=1)
    assert torch.equal(table_with(LOSSES).draw(ROWS, seed=3, epoch=1), drawn)
    for seed, epoch in ((4, 1), (3, 2)):
        assert not torch.equal(table_with(LOSSES).draw(ROWS, seed=seed, epoch=epoch), drawn)
    # The stream belongs to the seed for good: a change here breaks the resuming of runs that exist.
    assert sorted(drawn.tolist())[:6] == [4, 10, 54, 74, 78, 84]


def test_a_draw_is_the_same_for_any_number_of_threads() -> None:
    rows, losses = torch.arange(100_000), torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    table = LossTable(100_000, 0.4, CPU)
    table.record(rows, losses)
    table.start_epoch(1)
    one = table.draw(rows, seed=0, epoch=1)
    try:
        torch.set_num_threads(2)
        assert torch.equal(table.draw(rows, seed=0, epoch=1), one)
    finally:
        torch.set_num_threads(1)


def test_the_fraction_is_exact_and_rounded_up() -> None:
    assert LossTable(30, 0.1, CPU).num_drawn(30) == 3  # 0.1 * 30 is 3.0000000000000004
    assert [LossTable(9, 0.5, CPU).num_drawn(number) for number in (1, 2, 3)] == [1, 1, 2]


def test_losses_count_from_the_next_epoch_on() -> None:
    table = table_with(LOSSES)
    drawn = table.draw(ROWS, seed=0, epoch=1)
    table.record(ROWS, LOSSES.flip(0))
    table.start_epoch(1)  # Lightning sets the epoch again after a resume
    assert torch.equal(table.draw(ROWS, seed=0, epoch=1), drawn)
    table.start_epoch(2)
    expected = table_with(LOSSES.flip(0)).draw(ROWS, seed=0, epoch=1)
    assert torch.equal(table.draw(ROWS, seed=0, epoch=1), expected)


def test_the_last_loss_of_an_image_that_an_epoch_leaves_out_stays() -> None:
    table = table_with(LOSSES)
    table.record(ROWS[:500], torch.full((500,), 100.0))
    table.start_epoch(2)
    expected = table_with(torch.cat([torch.full((500,), 100.0), LOSSES[500:]]))
    assert torch.equal(table.state()["known"], expected.state()["known"])


def test_losses_that_are_not_numbers_are_the_largest() -> None:
    broken = LOSSES.clone()
    broken[:100] = math.nan
    assert draw_many(table_with(broken), 50)[:100].mean() > 0.88


@pytest.mark.parametrize("epoch_of_resume", [1, 2])
def test_a_restored_table_continues(epoch_of_resume: int) -> None:
    """Restore it within the epoch, or, for a longer training, after its end."""
    table, restored = table_with(LOSSES), LossTable(2000, 0.5, CPU)
    table.record(ROWS[:300], -LOSSES[:300])
    state = table.state()
    restored.set_state(state)
    assert restored.has_losses
    for each in (table, restored):
        each.start_epoch(epoch_of_resume)
        each.record(ROWS[300:400], -LOSSES[300:400])
    assert torch.equal(table.draw(ROWS, 0, epoch_of_resume), restored.draw(ROWS, 0, epoch_of_resume))
    table.start_epoch(3)
    restored.start_epoch(3)
    assert torch.equal(table.draw(ROWS, 0, 3), restored.draw(ROWS, 0, 3))
    assert (state["latest"] == -math.inf).sum() == 1700, "a state is a copy"


def test_batches_of_an_epoch() -> None:
    table, rows = LossTable(100, 0.33, CPU), torch.arange(10, 100)
    sampler = EpochSampler(indices=rows, seed=3, shuffle=True, loss_table=table)
    images, labels = torch.zeros(100, 1, 1, 1, dtype=torch.uint8), torch.arange(100) % 7
    ranks = [
        MemoryLoader(images=images, labels=labels, sampler=sampler, batch_size=8, rank=rank, world_size=2, mixing=None)
        for rank in range(2)
    ]
    for epoch in range(4):
        sampler.set_epoch(epoch)
        batches = [list(loader) for loader in ranks]
        assert [len(part) for part in batches] == [len(loader) for loader in ranks] == [4, 4]
        visited = [row for part in batches for batch in part for row in batch.indices[: batch.num_valid].tolist()]
        assert len(set(visited)) == len(visited) == 30  # 0.33 of 90, rounded up
        ranks[0].seek(2)
        assert [batch.indices.tolist() for batch in ranks[0]] == [batch.indices.tolist() for batch in batches[0][2:]]
        assert batches[0][0].loss_table is table
        table.record(torch.tensor(visited), torch.rand(30))
