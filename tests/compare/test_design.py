"""Choice between the tests of a fixed number of seeds and the sequential ones, and how captions state it."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from support.grids import LR, SEED
from support.studies import make_run, make_study

from litlab.compare.comparison import compare
from litlab.compare.data_model import Comparison
from litlab.compare.formats import render
from litlab.compare.html import to_html
from litlab.compare.looks import LOOKS_FILE, record_looks
from litlab.compare.table import build_table
from litlab.runs.directory import RunDirectory
from litlab.runs.signature import sign_study
from litlab.statistics.sequential import paired_looks

NOISE = [0.011, -0.004, 0.003, -0.012, 0.006, 0.001]
BASELINE = "lr=0.1"


def accuracy(point: dict[str, Any]) -> float:
    return 0.5 + 0.03 * point[SEED] + (0.02 + NOISE[point[SEED]] if point[LR] == 0.2 else 0.0)


def make(path: Path, num_seeds: int = 5, **settings: Any) -> list[RunDirectory]:
    return make_study(path, {LR: [0.1, 0.2], SEED: [*range(num_seeds)]}, accuracy, **settings)


def look_without(runs: list[RunDirectory], seeds: set[int]) -> None:
    """Look at a study in which some seeds are not completed yet."""
    missing = [run for run in runs if run.read_config()["seed"] in seeds]
    for run in missing:
        run.result.rename(run.path / "later")
    assert record_looks(compare([runs[0].path.parent], baseline=BASELINE)) == []
    for run in missing:
        (run.path / "later").rename(run.result)


def gains(num_seeds: int = 5) -> list[float]:
    return [accuracy({LR: 0.2, SEED: seed}) - accuracy({LR: 0.1, SEED: seed}) for seed in range(num_seeds)]


def check(comparison: Comparison, horizon: int | None, reason: str, num_seeds: int = 5) -> None:
    """Check that the tests are sequential, and what the caption says."""
    design = comparison.design
    assert (design.kind, design.horizon, design.reason) == ("sequential", horizon, reason)
    (difference,) = [group.difference for group in comparison.groups if group.difference]
    look = paired_looks(gains(num_seeds), horizon, scale=1.0)[-1]
    assert (difference.num, difference.kind) == (num_seeds, "paired")
    numbers = [difference.p, difference.corrected, difference.low, difference.high]
    assert numbers == pytest.approx([look.p, look.p, look.low, look.high])
    over = "any number of seeds" if horizon is None else f"up to {horizon} planned seeds"
    caption = " ".join(build_table(comparison).caption)
    assert f"Test: sequential over {over}, valid at every look ({reason})." in caption
    assert "paired by seed (sequential t-test of the pairs; effect" in caption
    assert "p: two-sided, the smallest so far, corrected by Holm for 1 comparison;" in caption
    assert "the intervals of differences are a confidence sequence, not corrected." in caption


def check_fixed(comparison: Comparison, num_seeds: int = 5) -> None:
    assert (comparison.design.kind, comparison.design.horizon) == ("fixed", None)
    (difference,) = [group.difference for group in comparison.groups if group.difference]
    test = stats.ttest_1samp(gains(num_seeds), 0.0)
    low, high = test.confidence_interval(0.95)
    assert [difference.p, difference.low, difference.high] == pytest.approx([test.pvalue, low, high])
    caption = " ".join(build_table(comparison).caption)
    assert "paired by seed (t-test of the pairs; effect" in caption
    assert (
        f"Test: of a fixed number of seeds; all {num_seeds} that were planned were completed before the first look."
        in caption
    )


def test_a_plan_that_was_reached_before_the_first_look(tmp_path: Path) -> None:
    make(tmp_path / "s")
    for _ in range(2):  # also when it is looked at again
        comparison = compare([tmp_path / "s"], baseline=BASELINE)
        check_fixed(comparison)
        assert record_looks(comparison) == []


def test_a_look_before_the_plan_was_reached(tmp_path: Path) -> None:
    runs = make(tmp_path / "s")
    look_without(runs, {3, 4})
    check(compare([tmp_path / "s"], baseline=BASELINE), 5, "looked at before all 5 seeds were completed")


def test_a_seed_that_failed_has_ended(tmp_path: Path) -> None:
    """Also when it is looked at again."""
    make(tmp_path / "s", status=lambda point: "failed" if point == {LR: 0.2, SEED: 4} else "completed")
    for _ in range(2):
        comparison = compare([tmp_path / "s"], baseline=BASELINE)
        assert comparison.design.kind == "fixed"
        assert comparison.design.reason.startswith("all 5 that were planned ended, some without a value,")
        assert record_looks(comparison) == []


def test_the_last_look_of_a_sequential_test_spends_the_rest_though_a_seed_failed(tmp_path: Path) -> None:
    runs = make(tmp_path / "s", status=lambda point: "failed" if point == {LR: 0.2, SEED: 4} else "completed")
    look_without(runs, {3})
    comparison = compare([tmp_path / "s"], baseline=BASELINE)
    assert (comparison.design.kind, comparison.design.is_last) == ("sequential", True)
    (difference,) = [group.difference for group in comparison.groups if group.difference]
    assert difference.p == pytest.approx(paired_looks(gains(4), 5, scale=1.0, is_last=True)[-1].p)
    assert difference.p < 0.8 * paired_looks(gains(4), 5, scale=1.0)[-1].p


def test_settings_that_are_added_after_a_look_are_named(tmp_path: Path) -> None:
    runs = make(tmp_path / "s")
    assert record_looks(compare([tmp_path / "s"], baseline=BASELINE)) == []
    assert compare([tmp_path / "s"], baseline=BASELINE).design.warning == ""
    for run in runs:
        if run.read_config()["optimizer"]["lr"] == 0.2:
            os.utime(run.config, (time.time() + 60,) * 2)
    comparison = compare([tmp_path / "s"], baseline=BASELINE)
    assert comparison.design.warning.startswith("Settings were added after a look:")
    assert comparison.design.warning in " ".join(build_table(comparison).caption)


def test_a_single_seed_that_was_tried_before_is_no_plan(tmp_path: Path) -> None:
    make(tmp_path / "s", planned_seeds=[1, 5])
    check_fixed(compare([tmp_path / "s"], baseline=BASELINE))


def test_pairs_are_tested_in_the_order_in_which_they_ended(tmp_path: Path) -> None:
    """A look at the first pairs that ended is at the beginning of those of a later look."""
    gains, order = [0.101, 0.1, 0.099, 0.1005, -0.3], [3, 1, 4, 0, 2]

    def value(point: dict[str, Any]) -> float:
        return 0.5 + 0.03 * point[SEED] + (gains[point[SEED]] if point[LR] == 0.2 else 0.0)

    runs = make_study(tmp_path / "s", {LR: [0.1, 0.2], SEED: [*range(5)]}, value, planned_seeds=[20])
    for run in runs:
        os.utime(run.result, (1e9 + order.index(run.read_config()["seed"]),) * 2)
    (difference,) = [g.difference for g in compare([tmp_path / "s"], baseline=BASELINE).groups if g.difference]
    ended, by_seed = (paired_looks([gains[seed] for seed in seeds], 20, scale=1.0)[-1].p for seeds in (order, range(5)))
    assert difference.p == pytest.approx(ended)
    assert by_seed < 0.05 < ended


def test_a_look_at_one_seed_finds_nothing(tmp_path: Path) -> None:
    runs = make(tmp_path / "s")
    look_without(runs, {1, 2, 3, 4})
    check_fixed(compare([tmp_path / "s"], baseline=BASELINE))


def test_a_plan_that_is_not_reached_yet(tmp_path: Path) -> None:
    make(tmp_path / "s", planned_seeds=[20])
    check(compare([tmp_path / "s"], baseline=BASELINE), 20, "not every group has all 20 seeds yet")


def test_a_plan_that_was_extended(tmp_path: Path) -> None:
    """Errors of answers that were given before are not among those that the open-ended test counts."""
    runs = make(tmp_path / "s", planned_seeds=[3, 5])
    reason = "the plan was extended from 3 to 5 seeds"
    comparison = compare([tmp_path / "s"], baseline=BASELINE)
    check(comparison, None, reason)
    assert comparison.design.warning == ""
    look_without(runs, {3, 4})
    comparison = compare([tmp_path / "s"], baseline=BASELINE)
    check(comparison, None, reason)
    warning = (
        "The open-ended test covers all looks. Whoever also counts the answers that were given under the plan of 3 "
        "seeds has an error of at most twice 5 %."
    )
    assert warning in " ".join(build_table(comparison).caption)


def test_more_seeds_than_planned(tmp_path: Path) -> None:
    make(tmp_path / "s", planned_seeds=[3])
    check(compare([tmp_path / "s"], baseline=BASELINE), None, "a group has more seeds than the 3 that were planned")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("planned_seeds: []", "no number of seeds was planned"),
        ("", "study.yaml does not record how many seeds were planned"),
    ],
)
def test_without_a_plan(content: str, reason: str, tmp_path: Path) -> None:
    make(tmp_path / "s")
    file = tmp_path / "s" / "study.yaml"
    file.write_text(file.read_text().replace("planned_seeds:\n- 5", content))
    check(compare([tmp_path / "s"], baseline=BASELINE), None, reason)


def test_the_study_of_somebody_else(tmp_path: Path) -> None:
    make(tmp_path / "s", is_own=False)
    reason = "the study is not your own, so looks at it may be unrecorded"
    check(compare([tmp_path / "s"], baseline=BASELINE), 5, reason)


def test_damaged_looks(tmp_path: Path) -> None:
    make(tmp_path / "s")
    (tmp_path / "s" / LOOKS_FILE).write_text("{}\n")
    check(compare([tmp_path / "s"], baseline=BASELINE), 5, "the looks in looks.jsonl can't be read")


def test_single_runs(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        for seed in range(5):
            make_run(tmp_path / f"{lr}_{seed}", {LR: lr, SEED: seed}, accuracy({LR: lr, SEED: seed}))
    check(compare([tmp_path], baseline=BASELINE), None, "single runs have no planned number of seeds")


@pytest.mark.parametrize(
    ("plan", "check_it"),
    [
        ([5], check_fixed),
        ([6], lambda comparison: check(comparison, None, "the studies have no common plan")),
    ],
)
def test_several_studies(plan: list[int], check_it: Callable[[Comparison], None], tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        planned = [5] if lr == 0.1 else plan
        make_study(tmp_path / str(lr), {LR: [lr], SEED: [*range(5)]}, accuracy, planned_seeds=planned)
    check_it(compare([tmp_path], baseline=BASELINE))


def test_all_formats_name_the_test(tmp_path: Path) -> None:
    make(tmp_path / "s", planned_seeds=[20])
    comparison = compare([tmp_path / "s"], baseline=BASELINE)
    sentence = "Test: sequential over up to 20 planned seeds, valid at every look"
    for format in ("table", "markdown", "latex"):
        assert sentence in " ".join(render(comparison, format).split())
    assert sentence in to_html(comparison)
    content = json.loads(render(comparison, "json"))
    assert content["design"] == {
        "kind": "sequential", "horizon": 20, "reason": "not every group has all 20 seeds yet", "warning": "",
        "is_last": False,
    }  # fmt: skip


def test_without_differences_no_test_is_named(tmp_path: Path) -> None:
    make(tmp_path / "s", planned_seeds=[20])
    assert "Test:" not in render(compare([tmp_path / "s"]), "table")


def test_decide_looks_after_each_seed(tmp_path: Path) -> None:
    make(tmp_path / "s")
    file = tmp_path / "s" / "study.yaml"
    content = file.read_text().replace("kind: grid", "kind: decide")
    file.write_text(content)
    sign_study(tmp_path / "s", content.encode())
    check(compare([tmp_path / "s"], baseline=BASELINE), 5, "hydra/sweeper=decide looks after each seed")
