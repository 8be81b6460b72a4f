"""Ablations: the changes of a recipe against the full one, with known values."""

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from scipy import stats
from support.grids import names
from support.studies import make_run, write_study

from litlab.compare.ablation import add_interactions
from litlab.compare.comparison import compare
from litlab.compare.data_model import Design, variant_of
from litlab.compare.formats import Format, render
from litlab.compare.html import to_html
from litlab.compare.plots import figures
from litlab.config.identity import identity
from litlab.errors import UserError
from litlab.statistics.sequential import paired_looks
from litlab.sweep.study import JobRecord, Study

ABLATE = {"no_flip": ["data.flip=false"], "slow": ["optimizer.lr=0.01"], "small": ["model.hidden=[4]"]}
VALUES: dict[str, dict[str, Any]] = {
    "no_flip": {"data.flip": False}, "slow": {"optimizer.lr": 0.01}, "small": {"model.hidden": [4]},
}  # fmt: skip
EFFECTS = {"no_flip": -0.02, "slow": -0.1, "small": 0.01}
ALL = ("no_flip", "slow", "small")
SINGLE = ((), ("no_flip",), ("slow",), ("small",), ALL)
NOISE = np.random.default_rng(0).normal(0, 0.004, (9, 5))  # of a variant and seed


def accuracy(variant: Sequence[str], seed: int) -> float:
    """Return an accuracy with known effects of the changes, and one of no_flip and slow together."""
    number = sum(2 ** ALL.index(name) for name in variant)
    interaction = 0.03 if {"no_flip", "slow"} <= {*variant} else 0.0
    return float(0.7 + 0.01 * seed + sum(EFFECTS[name] for name in variant) + interaction + NOISE[number, seed])


def make_ablation(
    path: Path,
    variants: Sequence[Sequence[str]] = SINGLE,
    values: Callable[[Sequence[str], int], float] = accuracy,
    seeds: Sequence[int] = range(5),
    settings: Mapping[str, Any] = {},
    ablate: Mapping[str, list[str] | None] = ABLATE,
) -> None:
    """Write an ablation, or more runs of one, all of whose seeds were planned, and that nobody has looked at."""
    records = [*Study.load(path).records] if (path / "study.yaml").exists() else []
    for variant in variants:
        changes = {key: value for name in variant for key, value in VALUES[name].items()}
        study = {"study.ablate": dict(ablate), "study.ablation": list(variant)}
        for seed in seeds:
            run = {"seed": seed, **settings, **changes, **study}
            name = f"{'+'.join(variant) or 'full'}_{seed}"
            config = make_run(path / name, run, values(variant, seed)).read_config()
            records.append(JobRecord(len(records), name, identity(config), [], {"seed": str(seed)}))
    write_study(path, records, {"seed": [*map(str, seeds)]}, [len(seeds)])


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an ablation without pairs; tests only read it."""
    path = tmp_path_factory.mktemp("ablation") / "s"
    make_ablation(path)
    return path


def values_of(variant: Sequence[str]) -> "np.ndarray[Any, Any]":
    return np.array([accuracy(variant, seed) for seed in range(5)])


def test_differences_from_the_full_recipe_the_most_harmful_first(ablation: Path) -> None:
    comparison = compare([ablation], ablation=True)
    assert names(comparison) == ["full recipe", "slow", "no_flip", "small", "all together"]
    assert comparison.baseline == "full recipe"
    assert [group.settings.get("overrides") for group in comparison.groups] == [
        None, "optimizer.lr=0.01", "data.flip=false", "model.hidden=[4]", None,
    ]  # fmt: skip
    p_values = {}
    for group, variant in zip(comparison.groups[1:], [("slow",), ("no_flip",), ("small",), ALL], strict=True):
        test = stats.ttest_rel(values_of(variant), values_of(()))
        low, high = test.confidence_interval(0.95)
        difference = group.difference
        assert difference is not None
        assert difference.num == 5
        assert difference.mean == pytest.approx((values_of(variant) - values_of(())).mean())
        assert [difference.low, difference.high, difference.p] == pytest.approx([low, high, test.pvalue])
        p_values[group.name] = test.pvalue
    corrected = np.maximum.accumulate(np.sort([*p_values.values()]) * np.arange(4, 0, -1))
    found = sorted(group.difference.corrected or 0 for group in comparison.groups if group.difference)
    assert found == pytest.approx(np.minimum(corrected, 1))


def test_losses_are_sorted_the_other_way(ablation: Path) -> None:
    comparison = compare([ablation], ablation=True, metric="val/loss")
    assert names(comparison) == ["full recipe", "slow", "no_flip", "small", "all together"]


def test_other_axes_are_averaged_for_each_seed(tmp_path: Path) -> None:
    for momentum in (0.5, 0.9):
        shift = 0.1 * momentum
        make_ablation(
            tmp_path / f"s{momentum}",
            values=lambda variant, seed, shift=shift: accuracy(variant, seed) + shift,  # type: ignore[misc]
            settings={"optimizer.momentum": momentum},
        )
    comparison = compare([tmp_path], ablation=True)
    assert "averaged over momentum (0.5, 0.9) for each seed, and then over seeds, which n and intervals count" in (
        comparison.notes
    )
    assert {group.value.num for group in comparison.groups if group.value} == {5}
    full = comparison.groups[0].value
    assert full is not None
    assert full.mean == pytest.approx(values_of(()).mean() + 0.07)
    filtered = compare([tmp_path], ablation=True, filters=["momentum=0.5"]).groups[0].value
    assert filtered is not None
    assert filtered.mean == pytest.approx(values_of(()).mean() + 0.05)


def test_what_is_no_ablation_is_refused(study: Path, ablation: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--ablation: none of these runs belongs to an ablation"):
        compare([study], ablation=True)
    make_ablation(tmp_path / "s", [("slow",)])
    with pytest.raises(UserError, match="--ablation: no run of the full recipe is among these"):
        compare([tmp_path], ablation=True)
    changed = ABLATE | {"slow": ["optimizer.lr=0.02"]}
    make_ablation(tmp_path / "t", [(), ("slow",)], ablate=changed)
    with pytest.raises(
        UserError, match=r"--ablation: slow means optimizer.lr=0.01 and optimizer.lr=0.02 in different runs"
    ):
        compare([tmp_path], ablation=True)
    assert "1 run of no ablation left out" in str(
        compare([ablation, _plain_run(tmp_path / "plain")], ablation=True).notes
    )


def _plain_run(path: Path) -> Path:
    make_run(path, {"seed": 0}, 0.5)
    return path


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ablation", "slow"), ("ablation", [["slow"]]), ("ablation", ["unknown"]), ("ablation", 3),
        ("ablate", None), ("ablate", {"full": ["a=1"]}), ("ablate", {"slow": [1]}), ("ablate", ["slow"]),
    ],
)  # fmt: skip
def test_damaged_records_are_of_no_ablation(key: str, value: Any, tmp_path: Path) -> None:
    make_ablation(tmp_path, [(), ("slow",)], seeds=[0, 1])
    damaged = tmp_path / "slow_1" / "config.yaml"
    config = yaml.safe_load(damaged.read_text())
    config["study"][key] = value
    damaged.write_text(yaml.dump(config))
    comparison = compare([tmp_path], ablation=True)
    assert [group.value.num for group in comparison.groups if group.value] == [2, 1]
    assert "1 run of no ablation left out" in comparison.notes


def test_changes_are_no_column_of_plain_comparisons(ablation: Path) -> None:
    comparison = compare([ablation])
    assert set(comparison.labels) == {"flip", "lr", "hidden"}
    assert len(comparison.groups) == 5


PAIRS = (("no_flip", "slow"), ("no_flip", "small"), ("slow", "small"))


@pytest.fixture(scope="module")
def with_pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make an ablation with pairs; tests only read it."""
    path = tmp_path_factory.mktemp("pairs") / "s"
    make_ablation(path, [*SINGLE[:4], *PAIRS, ALL])
    return path


def interaction_of(pair: Sequence[str]) -> "np.ndarray[Any, Any]":
    """Compute the interaction of each seed by hand."""
    first, second = pair
    return values_of(pair) - values_of((first,)) - values_of((second,)) + values_of(())


def test_interactions_are_what_pairs_do_beyond_the_sum_of_both(with_pairs: Path) -> None:
    comparison = compare([with_pairs], ablation=True)
    assert names(comparison) == ["full recipe", "slow", "no_flip", "small", "all together"], (
        "pairs have their own table"
    )
    assert [pair.name for pair in comparison.pairs] == ["no_flip + slow", "no_flip + small", "slow + small"]
    p_values = {pair: stats.ttest_1samp(interaction_of(pair), 0).pvalue for pair in PAIRS}
    ranked = sorted(p_values, key=lambda pair: p_values[pair])
    corrected = dict(zip(ranked, np.maximum.accumulate([3 * p_values[ranked[0]], 2 * p_values[ranked[1]],
                                                        p_values[ranked[2]]]), strict=True))  # fmt: skip
    for group, pair in zip(comparison.pairs, PAIRS, strict=True):
        by_seed = interaction_of(pair)
        low, high = stats.ttest_1samp(by_seed, 0).confidence_interval(0.95)
        interaction = group.interaction
        assert interaction is not None
        difference = interaction.difference
        assert interaction.together == pytest.approx((values_of(pair) - values_of(())).mean())
        assert interaction.total == pytest.approx(interaction.together - by_seed.mean())
        assert difference.num == 5
        assert [difference.mean, difference.low, difference.high] == pytest.approx([by_seed.mean(), low, high])
        assert difference.p == pytest.approx(p_values[pair])
        assert difference.corrected == pytest.approx(min(1, corrected[pair]))
    assert compare([with_pairs.parent], ablation=True, metric="val/loss").pairs[0].name == "no_flip + slow"


def test_an_interaction_counts_the_seeds_that_have_all_four_runs(tmp_path: Path) -> None:
    make_ablation(tmp_path / "a", [(), ("slow",), ("no_flip", "slow")], seeds=range(5))
    make_ablation(tmp_path / "b", [("no_flip",)], seeds=range(1, 4))
    (pair,) = compare([tmp_path], ablation=True).pairs
    assert pair.interaction is not None
    assert pair.interaction.difference.num == 3
    assert pair.interaction.difference.mean == pytest.approx(interaction_of(("no_flip", "slow"))[1:4].mean())
    make_ablation(tmp_path / "c", [("small",)], seeds=[0])
    make_ablation(tmp_path / "c", [("small", "slow")], seeds=[4])
    pairs = compare([tmp_path], ablation=True).pairs
    assert [bool(pair.interaction) for pair in pairs] == [True, False], "no seed has all four"
    assert "small + slow" in render(compare([tmp_path], ablation=True), "table")


def test_of_two_changes_all_together_is_the_pair(tmp_path: Path) -> None:
    two = {name: ABLATE[name] for name in ("no_flip", "slow")}
    make_ablation(tmp_path, [(), ("no_flip",), ("slow",), ("no_flip", "slow")], ablate=two)
    comparison = compare([tmp_path], ablation=True)
    assert names(comparison)[-1] == "all together"
    assert [pair.name for pair in comparison.pairs] == ["all together"]
    assert "no_flip + slow  5 " in render(comparison, "table")
    assert len(render(comparison, "csv").splitlines()) == 5, "each group once"


def test_equal_interactions_of_all_seeds_cannot_be_tested(tmp_path: Path) -> None:
    """Values are of single precision, so their differences are equal up to rounding only."""
    effects = {(): 0.7, ("no_flip",): 0.65, ("slow",): 0.6, ("no_flip", "slow"): 0.58}

    def values(variant: Sequence[str], seed: int) -> float:
        return float(np.float32(effects[tuple(variant)] + 0.01 * seed))

    make_ablation(tmp_path, [*effects], values)
    (pair,) = compare([tmp_path], ablation=True).pairs
    assert pair.interaction is not None
    assert pair.interaction.difference.mean == pytest.approx(0.03, abs=1e-6)
    assert pair.interaction.difference.p is None
    assert "No interaction could be tested." in render(compare([tmp_path], ablation=True), "table")


def test_the_full_recipe_needs_a_value(tmp_path: Path) -> None:
    make_ablation(tmp_path / "a", [("slow",)])
    study = {"study.ablate": dict(ABLATE), "study.ablation": []}
    make_run(tmp_path / "failed", {"seed": 0, **study}, 0.5, status="failed")
    with pytest.raises(UserError, match="--ablation: no run of the full recipe has a value of val/accuracy yet"):
        compare([tmp_path], ablation=True)


def test_runs_that_are_left_out_are_not_said_to_be_filtered(ablation: Path, tmp_path: Path) -> None:
    notes = compare([ablation, _plain_run(tmp_path / "plain")], ablation=True).notes
    assert not any("--filter" in note for note in notes)


@pytest.mark.parametrize("format", ["table", "markdown", "latex"])
def test_texts_have_both_tables(with_pairs: Path, format: Format) -> None:
    text = render(compare([with_pairs], ablation=True), format).replace("\\", "").replace("$-$", "-")
    rows = [re.findall(r"[^|&\s][^|&]*?(?=  | *[|&]| *$)", line.strip()) for line in text.splitlines()]
    slow = next(row for row in rows if row[:1] == ["slow"])
    assert slow[:3] == ["slow", "optimizer.lr=0.01", "5"]
    assert "-10.4" in slow
    assert next(row for row in rows if row[:1] == ["no_flip + slow"])[:5] == [
        "no_flip + slow", "5", "-9.0", "-12.3", "+3.3",
    ]  # fmt: skip
    assert "Differences: from full recipe" in text
    assert "p corrected for 3" in " ".join(text.split())
    assert "best group" not in text, "which is best is not the question"
    if format == "latex":
        assert text.count("toprule") == text.count("end{table}") == 2
        assert "label{tab:s}" in text
        assert "label{tab:s-interactions}" in text


def test_csv_and_json_have_each_value(with_pairs: Path) -> None:
    comparison = compare([with_pairs], ablation=True)
    rows = list(csv.DictReader(io.StringIO(render(comparison, "csv"))))
    assert [row["change"] for row in rows] == [*names(comparison), *(pair.name for pair in comparison.pairs)]
    assert [row["overrides"] for row in rows][1:3] == ["optimizer.lr=0.01", "data.flip=false"]
    assert float(rows[1]["difference mean"]) == pytest.approx((values_of(("slow",)) - values_of(())).mean())
    assert rows[1]["interaction mean"] == rows[5]["difference mean"] == ""
    assert float(rows[5]["interaction mean"]) == pytest.approx(interaction_of(PAIRS[0]).mean())
    content = json.loads(render(comparison, "json"))
    assert content["is_ablation"] is True
    assert content["groups"][1]["runs"][0]["variant"] == {
        "names": ["slow"], "overrides": ["optimizer.lr=0.01"], "known": sorted(ALL),
    }  # fmt: skip
    pair = content["pairs"][0]
    assert pair["interaction"]["difference"]["mean"] == float(rows[5]["interaction mean"])
    assert pair["columns"]["interaction together"] == pair["interaction"]["together"]


def test_the_page_asks_and_answers_the_question_of_an_ablation(with_pairs: Path) -> None:
    page = to_html(compare([with_pairs], ablation=True))
    assert "<h1>What does each change of the recipe do to validation accuracy?</h1>" in page
    assert "Of 3 changes, slow harms most: -10.4 points; 3 can be told from noise." in page
    assert "40 completed runs in 8 groups of 5" in page
    assert page.count('<h2 id="interactions">') == 1
    assert "Interaction in validation accuracy" in page
    assert "best group" not in page


def test_the_page_of_changes_that_do_no_harm(tmp_path: Path) -> None:
    make_ablation(tmp_path, [(), ("small",)])
    page = to_html(compare([tmp_path], ablation=True))
    assert "Of 1 change, none of the changes harms; 1 can be told from noise." in page
    assert 'id="interactions"' not in page


def test_the_figures_are_forest_plots(with_pairs: Path) -> None:
    comparison = compare([with_pairs], ablation=True)
    drawn = figures(comparison)
    assert [*drawn] == ["ablation", "interactions"]
    axes: Any = drawn["ablation"].axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    bars = [line for line in axes.lines if line.get_marker() == "None" and len({*line.get_xdata()}) > 1]
    differences = [group.difference for group in comparison.groups if group.difference]
    assert [dot.get_xdata()[0] for dot in dots] == pytest.approx([100 * each.mean for each in differences])
    heights = [dot.get_ydata()[0] for dot in dots]
    assert heights == sorted(heights, reverse=True), "the most harmful on top"
    assert heights[2] - heights[3] > heights[1] - heights[2], "all together is set off"
    assert [list(bar.get_xdata()) for bar in bars] == [
        pytest.approx([100 * (each.low or 0), 100 * (each.high or 0)]) for each in differences
    ]
    texts = [text.get_text() for text in axes.texts]
    assert texts[:3] == ["\u221210.4  [\u221211.0, \u22129.8]", "slow", "optimizer.lr=0.01"]
    fills = [line.get_markerfacecolor() for line in drawn["interactions"].axes[0].lines if line.get_marker() == "o"]
    assert [fill == "white" for fill in fills] == [False, True, True], "filled if the corrected p is below 0.05"


def test_a_wide_interval_is_cut_and_single_runs_have_none(tmp_path: Path) -> None:
    def values(variant: Sequence[str], seed: int) -> float:
        return 0.5 + (0.1 if variant else 0.0) * (1 + 9 * seed) * (-1) ** seed * 0.1

    make_ablation(tmp_path / "two", [(), ("slow",)], values, seeds=[0, 1])
    two = figures(compare([tmp_path / "two"], ablation=True))["ablation"]
    assert "bars cut" in two.get_suptitle()
    make_ablation(tmp_path / "one", [(), ("slow",), ("small",)], seeds=[0])
    one = figures(compare([tmp_path / "one"], ablation=True))["ablation"]
    assert one.get_suptitle() == ""
    make_ablation(tmp_path / "full", [()], seeds=[0, 1])
    comparison = compare([tmp_path / "full"], ablation=True)
    assert figures(comparison) == {}
    assert "No change has a completed run." in to_html(comparison)


def test_folds_are_repetitions_and_their_seeds_are_averaged(tmp_path: Path) -> None:
    """Folds of one partition are paired, also for interactions."""

    def run(variant: Sequence[str], fold: int, seed: int) -> None:
        changes = {key: value for name in variant for key, value in VALUES[name].items()}
        settings = {"data.folds": 4, "data.fold": fold, "data.val_seed": 0, "data.seed": seed, "seed": seed}
        study = {"study.ablate": dict(ABLATE), "study.ablation": list(variant)}
        name = f"{'+'.join(variant) or 'full'}_{fold}_{seed}"
        make_run(tmp_path / name, settings | changes | study, accuracy(variant, fold) + 0.01 * seed)

    for variant in (*SINGLE[:4], PAIRS[0]):
        for fold in range(4):
            for seed in (0, 1):
                run(variant, fold, seed)
    comparison = compare([tmp_path], ablation=True)
    slow = comparison.groups[1]
    assert slow.difference is not None
    assert (slow.name, slow.difference.kind, slow.difference.num) == ("slow", "paired", 4)
    assert slow.difference.mean == pytest.approx((values_of(("slow",)) - values_of(()))[:4].mean())
    (pair,) = comparison.pairs
    assert pair.interaction is not None
    assert pair.interaction.difference.num == 4
    assert pair.interaction.difference.mean == pytest.approx(interaction_of(PAIRS[0])[:4].mean())
    assert "n: folds with all four runs" in render(comparison, "table")


def test_hostile_overrides_are_shown_harmlessly(tmp_path: Path) -> None:
    hostile = "data.flip=\x1b[31m<script>&\\|%_$\u202e\n" + "x" * 2000
    make_ablation(tmp_path, [(), ("no_flip",)], ablate=ABLATE | {"no_flip": [hostile]})
    comparison = compare([tmp_path], ablation=True)
    for format in get_args(Format):
        assert not {"\x1b", "\u202e"} & {*render(comparison, format)}
    page = to_html(comparison)
    assert "\x1b" not in page
    assert "<script>&" not in page
    (figure,) = figures(comparison).values()
    assert figure.axes[0].texts[2].get_text().startswith("data.flip=")
    assert len(figure.axes[0].texts[2].get_text()) < 40


def test_secrets_in_overrides_are_masked(tmp_path: Path) -> None:
    make_ablation(tmp_path, [(), ("no_flip",)], ablate=ABLATE | {"no_flip": ["data.url=https://me:hunter2@host/x"]})
    assert "hunter2" not in "".join(render(compare([tmp_path], ablation=True), format) for format in get_args(Format))


def test_a_study_that_grew_by_a_change_has_its_former_combination_as_a_pair(tmp_path: Path) -> None:
    """Also if the changes were written in another order then."""
    two = {name: ABLATE[name] for name in ("no_flip", "slow")}
    make_ablation(tmp_path / "before", [(), ("no_flip",), ("slow",), ("no_flip", "slow")], seeds=[0, 1], ablate=two)
    turned = {name: ABLATE[name] for name in reversed(ABLATE)}
    make_ablation(tmp_path / "after", [*SINGLE, ("slow", "no_flip")], seeds=[2, 3], ablate=turned)
    comparison = compare([tmp_path], ablation=True)
    assert {group.name: group.value.num for group in comparison.groups if group.value} == {
        "full recipe": 4, "slow": 4, "no_flip": 4, "small": 2, "all together": 2,
    }  # fmt: skip
    (pair,) = comparison.pairs
    assert pair.interaction is not None
    assert pair.interaction.difference.num == 4
    assert pair.interaction.difference.mean == pytest.approx(interaction_of(("no_flip", "slow"))[:4].mean())


def test_interactions_are_tested_in_the_design_of_the_differences(with_pairs: Path) -> None:
    """After a look before the planned seeds were completed, by the sequential test."""
    comparison = compare([with_pairs], ablation=True)
    groups = [*comparison.all_groups]
    means = {
        group.name: {seed: accuracy(variant_of(group.runs), seed) for seed in range(5)}
        for group in comparison.all_groups
    }
    design = Design("sequential", horizon=5)
    tested = {group.name: group.interaction for group in add_interactions(groups, means, design)}
    for pair, fixed in zip(PAIRS, comparison.pairs, strict=True):
        interaction = tested[" + ".join(pair)]
        assert interaction is not None
        assert fixed.interaction is not None
        look = paired_looks([*interaction_of(pair)], 5, scale=0.7)[-1]
        difference = interaction.difference
        assert [difference.p, difference.low, difference.high] == pytest.approx([look.p, look.low, look.high])
        assert (difference.high or 0) - (difference.low or 0) > (fixed.interaction.difference.high or 0) - (
            fixed.interaction.difference.low or 0
        ), "the price of looks"
