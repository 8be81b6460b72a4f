import torch
from scipy import stats

from litlab.data.random_numbers import (
    random_below,
    random_bits,
    random_order,
    random_sequences,
    symmetric_beta,
    uniform,
)

MASK = 2**64 - 1


def splitmix(value: int) -> int:
    """Compute the published generator's output function in unsigned Python integers."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def test_bits_against_python_integers() -> None:
    assert splitmix(0) == 0xE220A8397B1DCDAF  # the published sequence for seed 0 begins so
    key = (3, 2**63 + 5, -1)
    state = 0
    for part in key:
        state = splitmix(state ^ (part & MASK))
    counters = torch.tensor([0, 1, 59_999, -4])
    expected = [splitmix(splitmix(counter & MASK) ^ state) for counter in counters.tolist()]
    assert [bits & MASK for bits in random_bits(counters, *key).tolist()] == expected


def test_sequences_are_the_published_sequence() -> None:
    first_of_seed_0 = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    streams = random_sequences(torch.tensor([0, 7]), 3)
    assert [bits & MASK for bits in streams[0].tolist()] == first_of_seed_0
    assert streams[1, 0] == random_sequences(torch.tensor([7]), 1)[0, 0]


def test_below_is_uniform_and_within_its_bound() -> None:
    numbers = random_below(random_bits(torch.arange(90_000), 1), 9)
    counts = torch.bincount(numbers)
    assert len(counts) == 9
    assert (counts - 10_000).abs().max() < 400  # 4 deviations
    ends = torch.tensor([0, 2**63 - 1, -(2**63), -1])  # 0, a half less one, a half and nearly 1 as fractions
    assert random_below(ends, 2**31).tolist() == [0, 2**30 - 1, 2**30, 2**31 - 1]


def test_order_is_stable_under_removal() -> None:
    members = torch.arange(50)
    order = random_order(members, 4).tolist()
    assert sorted(order) == list(range(50)) != order
    kept = torch.tensor([row for row in range(50) if row % 3])
    assert random_order(kept, 4).tolist() == [row for row in order if row % 3]


def test_a_tiny_alpha_and_extreme_numbers_stay_in_range() -> None:
    extremes = torch.tensor([0, -1, 1, 2**63 - 1, -(2**63)])
    radius, angle = (bits.flatten() for bits in torch.meshgrid(extremes, extremes, indexing="ij"))
    for alpha in (0.001, 0.1, 1.0, 1000.0):
        lam = symmetric_beta(alpha, radius, angle)
        assert ((lam >= 0) & (lam <= 1)).all()
    numbers = uniform(torch.cat([extremes, random_bits(torch.arange(20_000), 0)]))
    assert 0 < numbers.min() < numbers.max() < 1
    assert stats.kstest(numbers[5:].numpy(), "uniform").pvalue > 0.001
