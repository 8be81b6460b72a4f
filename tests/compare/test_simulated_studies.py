"""Studies made of random numbers: what is there is found as often as stated, what is not is rarely found.

Each count out of 200 studies has to be within the values that a binomial distribution with the stated rate takes with a
probability of 99.9 %; the random numbers are always the same ones.
"""

import math

import numpy as np
import pytest
from scipy import stats
from support.studies import make_study

from litlab.compare.comparison import compare
from litlab.compare.statistics import POWER, differences, num_seeds_needed, summarize
from litlab.runs.metrics import Metric

MAX = Metric("val/f1", mode="max")
ACCURACY = Metric("val/accuracy", "%", "max", (0.0, 1.0))

NUM_STUDIES = 200
LEVEL = 0.05


def bounds(rate):
    low, high = stats.binom.interval(0.999, NUM_STUDIES, rate)
    return range(int(low), int(high) + 1)


def test_the_bounds_are_narrow_enough_to_tell():
    assert bounds(0.05) == range(2, 22)
    assert bounds(0.8) == range(141, 179)


def seeds(values, first=0):
    return {first + seed: float(value) for seed, value in enumerate(values)}


def in_pairs(random, num, effect):
    """Seeds that help or harm both groups alike, four times as much as the two differ by chance."""
    shared, gains = random.normal(0.9, 0.04, num), random.normal(effect * 0.01, 0.01, num)
    return seeds(shared), seeds(shared + gains)


def apart(random, num, effect, ratio=1.0):
    """Groups without a common seed; `ratio` of their deviations."""
    return seeds(random.normal(0.9, 0.01, num)), seeds(random.normal(0.9 + effect * 0.01, ratio * 0.01, num), first=100)


def num_found(make):
    tested = [differences(baseline, {"b": other})["b"] for baseline, other in (make() for _ in range(NUM_STUDIES))]
    return sum(each.corrected < LEVEL for each in tested)


@pytest.mark.parametrize(("num", "effect"), [(3, 3.0), (5, 1.5), (10, 0.9), (20, 0.4)])
def test_a_planted_difference_between_pairs_is_found_at_the_stated_power(num, effect):
    random = np.random.default_rng(num)
    stated = stats.nct.sf(stats.t.isf(LEVEL / 2, num - 1), num - 1, effect * math.sqrt(num))
    assert num_found(lambda: in_pairs(random, num, effect)) in bounds(stated)


@pytest.mark.parametrize(("num", "effect"), [(5, 2.0), (10, 1.2), (20, 0.6)])
def test_a_planted_difference_without_common_seeds_is_found_at_the_stated_power(num, effect):
    """Stated is that of the test which knows that both spreads are the same: Welch's is next to it."""
    random = np.random.default_rng(num)
    dof = 2 * num - 2
    stated = stats.nct.sf(stats.t.isf(LEVEL / 2, dof), dof, effect * math.sqrt(num / 2))
    assert num_found(lambda: apart(random, num, effect)) in bounds(stated)


@pytest.mark.parametrize("effect", [0.4, 0.8, 1.5])
def test_as_many_pairs_as_are_said_to_be_needed_find_it_in_80_percent(effect):
    random = np.random.default_rng(int(10 * effect))
    num = num_seeds_needed(effect, 1.0, 1, LEVEL)
    reached = stats.nct.sf(stats.t.isf(LEVEL / 2, num - 1), num - 1, effect * math.sqrt(num))
    assert POWER <= reached < 0.9, "no more seeds than needed"
    assert num_found(lambda: in_pairs(random, num, effect)) in bounds(reached)


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_as_many_seeds_as_are_said_to_be_needed_find_it_in_80_percent(ratio):
    random = np.random.default_rng(int(ratio))
    variances = 1.0, ratio**2
    dof_of_one = sum(variances) ** 2 / sum(each**2 for each in variances)
    num = num_seeds_needed(1.2, math.sqrt(sum(variances)), dof_of_one, LEVEL)
    assert num_found(lambda: apart(random, num, 1.2, ratio)) in bounds(POWER)


@pytest.mark.parametrize("is_paired", [True, False])
def test_where_nothing_differs_rarely_is_anything_found(is_paired):
    """Five groups like the baseline: any that is "found" makes the study wrong. Without correction it happens often."""
    random = np.random.default_rng(5)
    num_wrong = num_wrong_without = 0
    for _ in range(NUM_STUDIES):
        shared = random.normal(0.9, 0.03, 5) if is_paired else 0.9
        groups = [shared + random.normal(0, 0.01, 5) for _ in range(6)]
        others = {str(group): seeds(values, 0 if is_paired else 10 * group) for group, values in enumerate(groups)}
        found = differences(others.pop("0"), others).values()
        num_wrong += any(each.corrected < LEVEL for each in found)
        num_wrong_without += any(each.p < LEVEL for each in found)
    assert num_wrong <= bounds(LEVEL)[-1]
    assert num_wrong_without > bounds(LEVEL)[-1]


def test_one_planted_difference_among_five_groups_is_found_and_the_others_are_not():
    """Holm's power is at least that of a test at a fifth of the level; the four others are wrong in 5 % at most."""
    random = np.random.default_rng(6)
    num, effect = 8, 1.8
    stated = stats.nct.sf(stats.t.isf(LEVEL / 5 / 2, num - 1), num - 1, effect * math.sqrt(num))
    num_planted = num_wrong = 0
    for _ in range(NUM_STUDIES):
        shared = random.normal(0.9, 0.03, num)
        others = {str(group): seeds(shared + random.normal(0, 0.01, num)) for group in range(4)}
        others["planted"] = seeds(shared + random.normal(effect * 0.01, 0.01, num))
        found = differences(seeds(shared), others)
        num_planted += found.pop("planted").corrected < LEVEL
        num_wrong += any(each.corrected < LEVEL for each in found.values())
    assert num_planted >= bounds(stated)[0]
    assert num_wrong <= bounds(LEVEL)[-1]


@pytest.mark.parametrize("num", [2, 3, 5, 20])
def test_intervals_hold_the_truth_in_95_percent(num):
    random = np.random.default_rng(num)
    summaries = [summarize(random.normal(0.9, 0.02, num).tolist(), MAX) for _ in range(NUM_STUDIES)]
    assert sum(each.low <= 0.9 <= each.high for each in summaries) in bounds(0.95)
    pairs = [differences(*with_name(in_pairs(random, num, 1.0)))["b"] for _ in range(NUM_STUDIES)]
    assert sum(each.low <= 0.01 <= each.high for each in pairs) in bounds(0.95)
    welch = [differences(*with_name(apart(random, num, 1.0, 3.0)))["b"] for _ in range(NUM_STUDIES)]
    covered = sum(each.low <= 0.01 <= each.high for each in welch)
    assert covered >= bounds(0.95)[0], "Welch's may be too wide with two or three seeds"


def with_name(groups):
    return groups[0], {"b": groups[1]}


def test_accuracies_of_few_images_in_single_precision_are_found_as_often():
    """Real accuracies are counts: here of 1,000 images, that differ by chance in training and in the images."""
    random = np.random.default_rng(8)

    def make():
        chances = random.normal([[0.85], [0.88]], 0.01, (2, 5))
        baseline, other = (random.binomial(1000, chances) / 1000).astype(np.float32)
        return seeds(baseline), seeds(other)

    deviation = math.sqrt(2 * 0.01**2 + 0.85 * 0.15 / 1000 + 0.88 * 0.12 / 1000)
    stated = stats.nct.sf(stats.t.isf(LEVEL / 2, 4), 4, 0.03 / deviation * math.sqrt(5))
    assert num_found(make) in bounds(stated)


def test_through_the_files_of_a_study(tmp_path):
    """The same numbers, from the files of runs: planted in one of three groups, found there alone."""
    random = np.random.default_rng(9)
    values = {}
    for seed in range(5):
        base = random.normal(0.8, 0.02)
        for lr, gain in ((0.01, 0.0), (0.1, 0.0), (0.5, 0.05)):
            values[lr, seed] = round(base + random.normal(gain, 0.004), 4)
    study = tmp_path / "study"
    axes = {"optimizer.lr": [0.01, 0.1, 0.5], "seed": list(range(5))}
    make_study(study, axes, lambda point: values[point["optimizer.lr"], point["seed"]])
    comparison = compare([study], baseline="lr=0.01")
    found = {group.name: group.difference for group in comparison.groups}
    of = {lr: [values[lr, seed] for seed in range(5)] for lr in (0.01, 0.1, 0.5)}
    assert found.pop("lr=0.01") is None
    p_values = {f"lr={lr}": stats.ttest_rel(of[lr], of[0.01]).pvalue for lr in (0.1, 0.5)}
    assert {name: each.p for name, each in found.items()} == pytest.approx(p_values)
    assert found["lr=0.5"].corrected == pytest.approx(2 * p_values["lr=0.5"])
    assert found["lr=0.5"].corrected < LEVEL < found["lr=0.1"].corrected
    assert any("lr=0.1" in note and f"{found['lr=0.1'].needed} seeds" in note for note in comparison.notes)
    assert not any("lr=0.5:" in note for note in comparison.notes)
    assert {group.name: group.value for group in comparison.groups} == {
        f"lr={lr}": summarize(of[lr], ACCURACY) for lr in of
    }
