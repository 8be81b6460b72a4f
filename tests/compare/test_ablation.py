"""Ablations: the changes of a recipe against the full one, with known values."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats
from support.grids import names
from support.studies import make_run

from litlab.compare.comparison import compare
from litlab.errors import UserError

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
    """Write the runs of an ablation."""
    for variant in variants:
        changes = {key: value for name in variant for key, value in VALUES[name].items()}
        study = {"study.ablate": dict(ablate), "study.ablation": list(variant)}
        for seed in seeds:
            run = {"seed": seed, **settings, **changes, **study}
            make_run(path / f"{'+'.join(variant) or 'full'}_{seed}", run, values(variant, seed))


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
