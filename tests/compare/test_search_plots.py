"""What the figures of a search show."""

from dataclasses import replace
from pathlib import Path

import pytest
from support.figure_studies import accuracy, write_plan
from support.studies import make_study

from litlab.compare.comparison import compare
from litlab.compare.model import Summary
from litlab.compare.plots import figures


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of 24 trials, in which the rate is all that matters."""
    study = tmp_path_factory.mktemp("plots") / "search"
    axes = {"optimizer.lr": [10 ** (-place / 3) for place in range(6)], "optimizer.momentum": [0.8, 0.9]}
    axes |= {"task.label_smoothing": [0.0, 0.1]}
    make_study(study, axes, accuracy, parameters=lambda point: round(1000 * point["optimizer.lr"]))
    write_plan(study, kind="search", search={"objectives": None})
    return study


def test_a_search_has_importance_parallel_coordinates_and_a_front(search: Path) -> None:
    found = figures(compare([search]))
    assert list(found) == ["curves", "lr", "momentum", "label_smoothing", "parallel", "importance", "pareto"]
    axes = found["importance"].axes[0]
    shares = [bar.get_width() for bar in axes.patches]
    assert axes.get_yticklabels()[-1].get_text() == "lr"
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] > 0.9
    assert found["pareto"].axes[0].get_xlabel() == "training time (s)"


def test_of_several_objectives_the_other_one_is_the_cost(search: Path) -> None:
    objectives = [{"metric": "val/accuracy", "mode": "max"}, {"metric": "parameters", "mode": "min"}]
    write_plan(search, search={"objectives": objectives})
    axes = figures(compare([search]))["pareto"].axes[0]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("parameters", "log")
    write_plan(search, search={"objectives": ["", {"metric": [], "mode": {}}, 3]})
    assert figures(compare([search]))["pareto"].axes[0].get_xlabel() == "training time (s)"


def test_too_few_trials_have_no_importance(search: Path) -> None:
    comparison = compare([search])
    assert "importance" not in figures(replace(comparison, groups=comparison.groups[:9]))
    alike = [replace(group, value=Summary(1, 0.5, None, None, None, 0.5)) for group in comparison.groups]
    assert "importance" not in figures(replace(comparison, groups=tuple(alike)))


def test_parallel_coordinates_have_a_line_a_group_and_the_best_is_the_thickest(search: Path) -> None:
    comparison = compare([search])
    axes = figures(comparison)["parallel"].axes[0]
    (drawn,) = axes.collections
    assert drawn.get_array()[-1] == pytest.approx(100 * accuracy({"optimizer.lr": 0.1}))
    assert drawn.get_linewidths()[-1] == max(drawn.get_linewidths())
    best = drawn.get_segments()[-1]
    assert best[0].tolist() == pytest.approx([0, 0.4])  # 0.1, by factors, between 10 ** (-5 / 3) and 1
    assert len(drawn.get_segments()) == 24
