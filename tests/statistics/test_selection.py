"""Selection bias in simulated studies: the mean of its estimates against the true one."""

import numpy as np
import pytest

from litlab.statistics.selection import SelectionBias, selection_bias

NUM_STUDIES = 2000
NUM_SPLITS = 50  # of each


def simulate(num_groups, num_seeds, spread_of_truths, *, shared=True):
    """Return the means of true and estimated bias of the value and of the lead over studies with deviation 1."""
    random = np.random.default_rng(0)
    true, estimated = [], []
    for _ in range(NUM_STUDIES):
        truth = random.normal(0, spread_of_truths, num_groups)
        noise = random.normal(0, 1, (num_groups, num_seeds))
        values = truth[:, None] + noise + (random.normal(0, 3, num_seeds) if shared else 0)
        best, second = values.mean(axis=1).argsort()[::-1][:2]
        errors = noise.mean(axis=1)
        true.append((errors[best], errors[best] - errors[second]))
        first = [0 if shared else 100 * group for group in range(num_groups)]
        groups = [dict(enumerate(row.tolist(), first[group])) for group, row in enumerate(values)]
        bias = selection_bias(groups, is_max=True, num_splits=NUM_SPLITS)
        estimated.append((bias.value, bias.lead))
    return np.mean(true, axis=0), np.mean(estimated, axis=0)


@pytest.mark.integrations
@pytest.mark.parametrize(("num_groups", "num_seeds"), [(2, 5), (5, 3), (20, 5)])
@pytest.mark.parametrize("shared", [True, False])
def test_equal_groups(num_groups, num_seeds, shared):
    """The best of equal groups leads by selection alone; both parts are estimated within 10 %."""
    true, estimated = simulate(num_groups, num_seeds, 0.0, shared=shared)
    assert estimated == pytest.approx(true, rel=0.1)


@pytest.mark.parametrize("spread", [0.2, 0.5, 1.0])
def test_different_groups(spread):
    """The estimate is not too small, and at most a fifth of a standard error too large."""
    true, estimated = simulate(5, 10, spread)
    assert (estimated > 0.95 * true).all()
    assert (estimated < true + 0.2 / np.sqrt(10)).all()


def test_a_clear_winner_owes_nothing_to_selection():
    values = np.random.default_rng(0).normal(0, 0.01, (3, 5)) + np.array([[0.0], [1.0], [2.0]])
    bias = selection_bias([dict(enumerate(row)) for row in values.tolist()], is_max=True)
    assert bias.value < 0.002
    assert bias.lead < 0.002


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_groups_of_one_seed_by_the_spread_of_others(spread):
    """As in a search, some of whose trials were repeated with other seeds."""
    random = np.random.default_rng(4)
    true, estimated = [], []
    for _ in range(NUM_STUDIES):
        truth, noise = random.normal(0, spread, 20), random.normal(0, 1, 20)
        bad = dict(enumerate(random.normal(-100, 1, 20).tolist()))
        best, second = (truth + noise).argsort()[::-1][:2]
        true.append((noise[best], noise[best] - noise[second]))
        groups = [bad, *({0: value} for value in (truth + noise).tolist())]
        bias = selection_bias(groups, is_max=True, num_splits=NUM_SPLITS)
        estimated.append((bias.value, bias.lead))
    assert np.mean(estimated, axis=0) == pytest.approx(np.mean(true, axis=0), rel=0.25)


def test_seeds_that_are_good_for_all_groups_are_no_selection():
    """The first group is better with every seed, however different the seeds are, whatever other groups there are."""
    shared = {seed: 10.0 * seed for seed in range(5)}
    groups = [shared, {seed: value - 0.1 for seed, value in shared.items()}]
    for others in ([], [{0: -1000.0}], [{7: -1000.0, 8: -1001.0, 9: -1002.0}]):
        bias = selection_bias([*groups, *others], is_max=True)
        assert bias.lead == pytest.approx(0, abs=1e-9)
        assert others or bias.value == pytest.approx(0, abs=1e-9)


def test_without_two_seeds_nothing_is_known():
    assert selection_bias([{0: 0.5}, {0: 0.6}], is_max=True) is None


def test_extreme_values():
    assert selection_bias([{0: 1e308, 1: -1e308}, {0: -1e308, 1: 1e308}], is_max=True) is None
    assert selection_bias([{0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5}], is_max=True) == SelectionBias(0.0, 0.0)


def test_the_same_numbers_give_the_same_bias():
    groups = [{0: 0.1, 1: 0.3, 2: 0.2}, {0: 0.2, 1: 0.1, 2: 0.4}]
    assert selection_bias(groups, is_max=True) == selection_bias(groups, is_max=True)
    negative = [{seed: -value for seed, value in group.items()} for group in groups]
    assert selection_bias(negative, is_max=False) == selection_bias(groups, is_max=True)
