"""Tests of the decisions of a decide study by simulation: error rate, order of results, cuts, growth, failures."""

import random
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from litlab.statistics.sequential import Look, paired_looks
from litlab.sweep.decide.decisions import Decisions
from litlab.sweep.decide.rounds import MIN_PAIRS, Looks, Rule, Run, Verdict

NUM_STUDIES = 2000
KEYS = ("base", "a", "b", "c", "d", "e")
Table = dict[str, list[float]]


def rule(**changes: object) -> Rule:
    return Rule(**{"alpha": 0.05, "delta": None, "higher_is_better": True, "drops_worse": False} | changes)  # type: ignore[arg-type]


def table(generator: np.random.Generator, num: int, gains: Sequence[float] = ()) -> Table:
    """Draw values of the settings: an effect of the seed that all share, noise of 1, and the gain of each."""
    shared = generator.normal(size=num)
    means = [*gains, *[0.0] * (len(KEYS) - len(gains))]
    return {key: list(shared + generator.normal(mean, 1, num)) for key, mean in zip(KEYS, means, strict=True)}


def cached(values: Table) -> Looks:
    """Return a test that computes the looks of each pair once: those at fewer pairs are their beginning."""
    gains = {pair: np.subtract(values[pair[0]], values[pair[1]]).tolist() for pair in all_pairs()}
    first = {tuple(whole[:2]): whole for whole in gains.values()}
    computed: dict[object, list[Look]] = {}

    def looks(seen: Sequence[float], horizon: int | None, level: float, scale: float, is_last: bool) -> list[Look]:
        key = tuple(seen[:2]), horizon, level
        if key not in computed:
            computed[key] = paired_looks(first[key[0]], horizon, level)
        return computed[key][: len(seen) - 1]

    return looks


def all_pairs() -> list[tuple[str, str]]:
    return [*combinations(KEYS, 2), *(pair[::-1] for pair in combinations(KEYS, 2))]


def finish(decisions: Decisions, values: Table) -> None:
    """Give the decisions all values that they want until they are over."""
    while runs := decisions.wanted():
        decisions.values |= {(key, index): values[key][index] for key, index in runs}
        decisions.advance()


def verdicts(decisions: Decisions) -> dict[tuple[str, str], tuple[Verdict, int, int]]:
    """Return verdict, number of pairs and family of each comparison."""
    found = {}
    for pair in dict.fromkeys(pair for family in decisions.families for pair in family.pairs):
        comparison, index = decisions.comparison(pair)
        found[pair] = comparison.verdict, comparison.look.num if comparison.look else 0, index
    return found


def errors(decide: Callable[[np.random.Generator], Decisions]) -> int:
    """Count the studies under the null in which a difference is found."""
    generator = np.random.default_rng(0)
    found = (verdicts(decide(generator)).values() for _ in range(NUM_STUDIES))
    return sum(any(verdict in (Verdict.BETTER, Verdict.WORSE) for verdict, *_ in study) for study in found)


@pytest.mark.integrations
@pytest.mark.parametrize(("baseline", "num_settings", "seeds_max"), [("base", 6, 12), (None, 4, 8)])
def test_under_the_null_anything_is_decided_in_at_most_alpha_of_studies(
    baseline: str | None, num_settings: int, seeds_max: int
) -> None:
    def decide(generator: np.random.Generator) -> Decisions:
        values = table(generator, seeds_max)
        decisions = Decisions(rule(drops_worse=baseline is None), 0.0, seeds_max, baseline, cached(values))
        decisions.add_settings(KEYS[:num_settings])
        finish(decisions, values)
        return decisions

    assert errors(decide) <= stats.binom.ppf(0.999, NUM_STUDIES, 0.05)


@pytest.mark.integrations
def test_growth_keeps_the_error_rate_within_the_reserve() -> None:
    def decide(generator: np.random.Generator) -> Decisions:
        values = table(generator, 8)
        decisions = Decisions(rule(alpha=0.1), 0.5, 8, "base", cached(values))
        decisions.add_settings(KEYS[:3])
        finish(decisions, values)
        decisions.add_settings(KEYS)
        finish(decisions, values)
        assert [family.alpha for family in decisions.families] == [0.05, 0.05]
        return decisions

    found = errors(decide)
    assert found <= stats.binom.ppf(0.999, NUM_STUDIES, 0.1)
    assert found > stats.binom.ppf(0.001, NUM_STUDIES, 0.05)  # both families spend their share


def test_a_true_difference_is_decided_with_few_seeds() -> None:
    values = table(np.random.default_rng(1), 20, [0, 6, -6])
    decisions = Decisions(rule(), 0.1, 20, "base")
    decisions.add_settings(KEYS[:4])
    finish(decisions, values)
    found = verdicts(decisions)
    assert found["a", "base"][0] is Verdict.BETTER
    assert found["b", "base"][0] is Verdict.WORSE
    assert found["c", "base"] == (Verdict.UNDECIDED, 20, 0)
    num_runs = [sum(key == name for key, _ in decisions.values) for name in KEYS[:4]]
    assert num_runs[0] == num_runs[3] == 20
    assert max(num_runs[1:3]) < 12
    lower = Decisions(rule(higher_is_better=False), 0.1, 20, "base")
    lower.add_settings(KEYS[:4])
    finish(lower, values)
    assert verdicts(lower)["a", "base"][0] is Verdict.WORSE


def test_a_setting_that_is_worse_than_another_one_is_dropped() -> None:
    values = table(np.random.default_rng(2), 20, [0, 5, 5.1, 0])
    decisions = Decisions(rule(drops_worse=True), 0.1, 20, None)
    decisions.add_settings(KEYS[:4])
    finish(decisions, values)
    assert {key for rounds in decisions.rounds for key in rounds.worse()} == {"base", "c"}
    found = verdicts(decisions)
    assert found["a", "b"] == (Verdict.UNDECIDED, 20, 0)
    assert found["base", "c"][0] is Verdict.DROPPED
    assert sum(key == "base" for key, _ in decisions.values) < 12


@pytest.mark.parametrize("baseline", ["base", None])
@pytest.mark.parametrize("seed", range(12))
def test_decisions_depend_neither_on_the_order_of_results_nor_on_cuts(baseline: str | None, seed: int) -> None:
    """Results arrive in any order from 1 to 7 workers, some runs fail, and the study is begun again at any time."""
    chance = random.Random(seed)
    values = table(np.random.default_rng(seed), 12, [0, 2, -1, 4, 0.5])
    failed = {(key, index) for key in KEYS for index in range(12) if chance.random() < 0.08}
    given = rule(drops_worse=baseline is None, delta=1.5)

    def begin() -> Decisions:
        decisions = Decisions(given, 0.1, 12, baseline)
        decisions.add_settings(KEYS)
        return decisions

    def outcome(run: Run) -> float | None:
        return None if run in failed else values[run[0]][run[1]]

    whole = begin()
    while runs := whole.wanted():
        whole.values[runs[0]] = outcome(runs[0])
        whole.advance()
    disturbed, running, num_workers = begin(), list[Run](), chance.randint(1, 7)
    while disturbed.wanted():
        running += [run for run in disturbed.wanted() if run not in running][: num_workers - len(running)]
        run = running.pop(chance.randrange(len(running)))
        disturbed.values[run] = outcome(run)
        if chance.random() < 0.2:  # killed: the next command knows the values of the runs that have ended
            known, running = disturbed.values, []
            disturbed = begin()
            disturbed.values |= known
        disturbed.advance()
    assert verdicts(disturbed) == verdicts(whole)
    assert {pair for pair, (verdict, *_) in verdicts(whole).items() if verdict is not Verdict.UNDECIDED}
    shown = [[decisions.comparison(pair)[0] for pair in verdicts(whole)] for decisions in (whole, disturbed)]
    assert shown[0] == shown[1]


def test_runs_are_ordered_by_their_distance_to_a_decision_and_at_most_one_round_ahead() -> None:
    values = {"base": [0.0] * 4, "a": [3.0, 1.0, 2.0, 2.0], "b": [-1.0, 1.0, 0.0, 0.0]}
    decisions = Decisions(rule(), 0.1, 20, "base")
    decisions.add_settings(KEYS[:3])
    first = decisions.wanted()
    assert first[:3] == [("base", 0), ("a", 0), ("b", 0)]
    assert {index for _, index in first} == set(range(MIN_PAIRS + 1))  # rounds that decide nothing are all needed
    decisions.values |= {(key, index): values[key][index] for key, index in first if index < MIN_PAIRS}
    decisions.advance()
    assert decisions.rounds[0].num == MIN_PAIRS
    assert decisions.rounds[0].distance("a") < decisions.rounds[0].distance("b")
    assert decisions.wanted() == [("base", 3), ("a", 3), ("b", 3), ("base", 4), ("b", 4), ("a", 4)]


def test_within_delta_is_decided_and_a_setting_that_changes_nothing_is_not() -> None:
    generator = np.random.default_rng(4)
    values = {key: list(generator.normal(0, 0.01, 20)) for key in ("base", "a")}
    values["b"] = values["base"]
    decisions = Decisions(rule(delta=0.1), 0.1, 20, "base")
    decisions.add_settings(["base", "a", "b"])
    finish(decisions, values)
    assert verdicts(decisions)["a", "base"][0] is Verdict.WITHIN
    assert verdicts(decisions)["a", "base"][1] < 10
    assert verdicts(decisions)["b", "base"] == (Verdict.UNDECIDED, 20, 0)
    assert not decisions.comparison(("b", "base"))[0].has_spread


def test_a_setting_whose_first_runs_fail_gets_no_more_and_other_failures_are_left_out() -> None:
    values = table(np.random.default_rng(5), 8)
    decisions = Decisions(rule(), 0.1, 8, "base")
    decisions.add_settings(KEYS[:3])
    failed = {("a", 0), ("a", 1), ("a", 2), ("b", 1)}
    while runs := decisions.wanted():
        decisions.values[runs[0]] = None if runs[0] in failed else values[runs[0][0]][runs[0][1]]
        decisions.advance()
    assert verdicts(decisions) == {
        ("a", "base"): (Verdict.FAILED, 0, 0),
        ("b", "base"): (Verdict.UNDECIDED, 7, 0),
    }
    assert decisions.comparison(("b", "base"))[0].num_left_out == 1
    assert [key for key, _ in decisions.values].count("a") == MIN_PAIRS


def test_growth_draws_on_the_reserve_once_and_then_opens_new_families() -> None:
    values = table(np.random.default_rng(6), 9)

    def grown(*steps: tuple[int, int]) -> Decisions:
        decisions = Decisions(rule(), 0.1, 0, "base")
        for num_settings, seeds_max in steps:
            families, known = decisions.families, decisions.values
            decisions = Decisions(rule(), 0.1, seeds_max, "base")
            for family in families:
                decisions.open(family)
            decisions.values |= known
            decisions.advance()
            decisions.add_settings(KEYS[:num_settings])
            finish(decisions, values)
        return decisions

    def families(decisions: Decisions) -> list[tuple[float, str, int | None, int | None]]:
        return [(round(f.alpha, 6), f.source, f.horizon, f.extends) for f in decisions.families]

    more_settings = grown((3, 4), (4, 4), (5, 4))
    assert families(more_settings) == [
        (0.045, "first", 4, None), (0.005, "reserve", 4, None), (0.05, "new", 4, None)
    ]  # fmt: skip
    assert more_settings.error_rate == pytest.approx(0.1)
    assert more_settings.families[1].pairs == (("c", "base"),)
    more_seeds = grown((3, 4), (3, 6), (3, 9))
    assert families(more_seeds) == [(0.045, "first", 4, None), (0.005, "reserve", None, 0)]
    assert more_seeds.error_rate == pytest.approx(0.05)
    assert {look for _, look, _ in verdicts(more_seeds).values()} == {9}
    assert grown((3, 4), (3, 4)).families == grown((3, 4)).families


def test_comparisons_within_delta_count_where_the_others_are_tested_with_more_seeds() -> None:
    values = table(np.random.default_rng(8), 12)
    values["a"] = [value + 0.001 * index for index, value in enumerate(values["base"])]
    values["b"] = list(values["base"] + np.random.default_rng(9).normal(0.4, 0.6, 12))

    def begin(seeds_max: int) -> Decisions:
        return Decisions(rule(delta=0.2), 0.1, seeds_max, "base")

    first = begin(6)
    first.add_settings(KEYS[:3])
    finish(first, values)
    before = verdicts(first)
    assert [before[key, "base"][0] for key in "ab"] == [Verdict.WITHIN, Verdict.UNDECIDED]
    grown = begin(12)
    grown.open(first.families[0])
    grown.values |= first.values
    grown.advance()
    finish(grown, values)
    extension = grown.families[1]
    assert (extension.pairs, extension.within) == ((("b", "base"), ("a", "base")), (("a", "base"),))
    comparison, index = grown.comparison(("b", "base"))
    assert index == 1
    assert comparison.look is not None
    assert comparison.look.num == 12
    assert comparison.corrected == pytest.approx(min(1, 2 * comparison.look.p))
    assert comparison.look.p < 0.9
    assert verdicts(grown)["a", "base"] == before["a", "base"]


def test_settings_that_are_added_to_a_race_meet_those_that_are_left() -> None:
    values = table(np.random.default_rng(7), 20, [0, 6, 0, 12])
    decisions = Decisions(rule(drops_worse=True), 0.1, 20, None)
    decisions.add_settings(KEYS[:3])
    finish(decisions, values)
    decisions.add_settings(KEYS[:4])
    assert decisions.families[1].pairs == (("c", "a"),)
    finish(decisions, values)
    assert verdicts(decisions)["c", "a"][0] is Verdict.BETTER
