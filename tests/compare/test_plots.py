"""Figures of a comparison: means, intervals, positions, files."""

import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support.fonts import ASCII, installed_only, write_font
from support.studies import accuracy_interval, make_study

from litlab.compare.comparison import compare
from litlab.compare.data_model import Comparison, Summary
from litlab.compare.output_files import save_figures, svg
from litlab.compare.plots import figures, missing_figures
from litlab.compare.plots.cost import pareto_front
from litlab.compare.plots.style import Dot, is_geometric, new_figure, scale_of, set_y_limits
from litlab.runs.metrics import Metric

RATES, WIDTHS, SEEDS = [0.01, 0.1, 1.0], [[2, 4], [4, 8], [16, 32]], [0, 1, 2]


def accuracy(point: Mapping[str, Any]) -> float:
    """Return an accuracy that is best at a rate of 0.1 and the widest network; seeds are 1 % apart."""
    of_rate = 0.1 * (math.log10(point.get("optimizer.lr", 0.1)) + 0.95) ** 2
    return 0.7 - of_rate + 0.004 * point.get("model.widths", [0])[0] + 0.01 * point.get("seed", 0)


def curve(point: Mapping[str, Any], epoch: int) -> float:
    return accuracy(point) * (epoch + 1) / 4


def lines(figure: Any) -> dict[str, Any]:
    """Return name in the legend -> line."""
    (legend,) = figure.legends
    by_look = {(line.get_color(), line.get_marker()): line for line in figure.axes[0].lines}
    return {
        text.get_text(): by_look[handle.get_color(), handle.get_marker()]
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    study = tmp_path_factory.mktemp("plots") / "grid"
    axes = {"optimizer.lr": RATES, "model.widths": WIDTHS, "seed": SEEDS}
    seconds: Any = lambda point: {"training": point["model.widths"][0] * 10.0}  # noqa: E731
    make_study(study, axes, accuracy, curve=curve, num_epochs=4, rows_per_epoch=1, seconds=seconds)
    comparison = compare([study])
    return replace(comparison, baseline=comparison.groups[-1].name)


@pytest.fixture(scope="module")
def drawn(grid: Comparison) -> dict[str, Any]:
    return figures(grid)


def test_two_settings_have_these_figures(drawn: dict[str, Any]) -> None:
    assert list(drawn) == ["curves", "lr", "widths", "heatmap", "time"]
    assert drawn["lr"].get_label() == "validation accuracy (%) against lr"


def test_a_curve_is_the_mean_and_its_band_the_t_interval(drawn: dict[str, Any]) -> None:
    axes = drawn["curves"].axes[0]
    line = lines(drawn["curves"])["lr=0.1 widths=[16,32]"]
    point = {"optimizer.lr": 0.1, "model.widths": [16, 32]}
    values = np.array([[100 * curve(point | {"seed": seed}, epoch) for epoch in range(4)] for seed in SEEDS])
    assert line.get_xdata().tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(line.get_ydata(), values.mean(axis=0))
    (band,) = [band for band in axes.collections if to_hex(band.get_facecolor()[0]) == line.get_color().lower()]
    low, high = zip(*(accuracy_interval(column / 100) for column in values.T), strict=True)
    corners = band.get_paths()[0].vertices
    for epoch in range(4):
        ends = corners[corners[:, 0] == epoch + 1][:, 1]
        np.testing.assert_allclose([ends.min() / 100, ends.max() / 100], [low[epoch], high[epoch]])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "validation accuracy (%)")


def to_hex(color: Any) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color[:3])


def test_the_best_eight_and_the_baseline_have_curves(grid: Comparison, drawn: dict[str, Any]) -> None:
    looks = {(str(line.get_linestyle()), line.get_marker()) for line in lines(drawn["curves"]).values()}
    assert len(looks) == 9, "of nine, which differ without color"
    best = {group.name for group in grid.groups} - {grid.baseline}
    for groups in (grid.groups, grid.groups[::-1]):  # whatever the table is sorted by
        without = figures(replace(grid, baseline=None, groups=groups))["curves"]
        assert lines(without).keys() == best
        assert without.get_suptitle().startswith("8 of 9 groups")


def test_runs_without_a_curve_are_counted_and_left_out(tmp_path: Path) -> None:
    """A curve goes as far as all of its runs."""
    runs = make_study(tmp_path / "s", {"optimizer.lr": RATES, "seed": SEEDS}, accuracy, num_epochs=3)
    rows = runs[8].metrics.read_text().splitlines(keepends=True)
    runs[8].metrics.write_text("".join(row for row in rows if not row.startswith("2,")))
    runs[0].metrics.unlink()
    for run in runs[3:5]:
        run.metrics.write_bytes(b"\xff\0" * 1000)
    runs[6].metrics.write_text("epoch,step,metric,value\n0,10,val/accuracy,nan\n1,20,val/accuracy,0.5\n")
    figure = figures(compare([tmp_path / "s"]))["curves"]
    assert "left out: 3 runs without a curve" in " ".join(figure.get_suptitle().split())
    curves = lines(figure)
    expected = 100 * (accuracy({"optimizer.lr": 0.01, "seed": 1}) + accuracy({"optimizer.lr": 0.01, "seed": 2})) / 2
    assert curves["lr=0.01"].get_ydata().tolist() == pytest.approx([expected] * 3)
    first, second = curves["lr=1"].get_ydata()
    assert math.isnan(first)  # of three runs one has none there
    assert second == pytest.approx(100 * (0.5 + accuracy({"optimizer.lr": 1.0, "seed": 1.5}) * 2) / 3)


def test_a_setting_of_factors_has_a_logarithmic_axis_and_a_line_for_each_other_setting(drawn: dict[str, Any]) -> None:
    axes = drawn["lr"].axes[0]
    assert axes.get_xscale() == "log"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0.01", "0.1", "1"]
    line = lines(drawn["lr"])["widths=[2,4]"]
    means = [100 * accuracy({"optimizer.lr": rate, "model.widths": [2, 4], "seed": 1}) for rate in RATES]
    assert line.get_xdata().tolist() == RATES
    assert line.get_ydata() == pytest.approx(means)
    assert line.get_linestyle() != "None"


def test_bars_are_intervals_and_runs_are_dots(grid: Comparison, drawn: dict[str, Any]) -> None:
    shapes = [line.get_xydata() for line in drawn["lr"].axes[0].lines]
    group = next(group for group in grid.groups if group.name == "lr=0.1 widths=[2,4]")
    bars = np.concatenate([shape for shape in shapes if np.isnan(shape).any()])
    for end in (group.value.low, group.value.high):
        assert np.isclose(bars, [0.1, 100 * end]).all(axis=1).any()
    points = np.concatenate(shapes)
    for seed in SEEDS:
        value = 100 * accuracy({"optimizer.lr": 0.1, "model.widths": [2, 4], "seed": seed})
        assert np.isclose(points, [0.1, value]).all(axis=1).any()


def test_a_setting_of_names_has_places_side_by_side_and_no_line(drawn: dict[str, Any]) -> None:
    axes = drawn["widths"].axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["[2,4]", "[4,8]", "[16,32]"]
    curves = lines(drawn["widths"])
    assert list(curves) == ["lr=0.01", "lr=0.1", "lr=1"]
    assert curves["lr=0.01"].get_xdata() == pytest.approx([-0.2, 0.8, 1.8])
    assert curves["lr=0.1"].get_linestyle() == "None"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.01, 0.1, 1], True), ([0.02, 0.05, 0.1], True), ([16, 32, 64], True), ([0.01, 0.1], True),
        ([0.1, 0.2], False), ([*range(1, 11)], False), ([0.8, 0.9, 0.95, 0.99], False), ([0, 0.1, 1], False),
        ([-1, 1, 10], False), ([0.1], False),
    ],
)  # fmt: skip
def test_values_that_are_spaced_geometrically(values: list[float], expected: bool) -> None:
    assert is_geometric(values) is expected


def test_names_are_in_the_order_of_their_numbers_and_no_numbers_are_names() -> None:
    assert list(scale_of(["[16,32]", "[6,16]"]).positions) == ["[6,16]", "[16,32]"]
    assert list(scale_of(["10", "9", "1e-1"]).positions.values()) == [0.1, 9, 10]
    assert not any(scale_of(["1", text]).is_numeric for text in ("nan", "inf", "1_0", "null", "1e400", ""))


def test_cells_of_the_heat_map_have_the_means(drawn: dict[str, Any]) -> None:
    axes, bar = drawn["heatmap"].axes
    points = [[{"optimizer.lr": rate, "model.widths": widths, "seed": 1} for rate in RATES] for widths in WIDTHS]
    expected = np.array([[100 * accuracy(point) for point in row] for row in points])
    np.testing.assert_allclose(axes.collections[0].get_array(), expected)
    assert [text.get_text() for text in axes.texts] == [f"{value:.1f}" for value in expected.ravel()]
    colors = {float(text.get_text()): text.get_color() for text in axes.texts}
    assert colors[max(colors)] == "black"  # on the lightest cell
    assert colors[min(colors)] == "white"
    assert bar.get_ylabel() == "validation accuracy (%)"


def test_a_grid_with_holes_has_no_heat_map(grid: Comparison) -> None:
    assert "heatmap" in figures(replace(grid, groups=grid.groups[:7]))
    assert "heatmap" not in figures(replace(grid, groups=grid.groups[:6]))


def test_time_has_the_seconds_and_the_front(drawn: dict[str, Any]) -> None:
    axes = drawn["time"].axes[0]
    curves = lines(drawn["time"])
    assert axes.get_xlabel() == "training time (s)"
    assert curves["lr=0.1 widths=[4,8]"].get_xdata() == [40]
    assert curves["Pareto front"].get_xdata().tolist() == [20, 40, 160]  # a wider network is better


def test_pareto_front() -> None:
    def at(x: float, y: float) -> Dot:
        return Dot(x, y, y, y)

    dots = [at(1, 5), at(2, 4), at(2, 6), at(3, 6), at(4, 9)]
    assert pareto_front(dots, "min", "max") == [at(1, 5), at(2, 6), at(4, 9)]
    assert pareto_front(dots, "min", "min") == [at(1, 5), at(2, 4)]
    assert pareto_front(dots, "max", "max") == [at(4, 9)]


def test_a_group_of_one_run_has_a_curve_and_no_band(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"seed": [0]}, accuracy, num_epochs=1)
    drawn = figures(compare([tmp_path / "s"]))
    assert list(drawn) == ["curves"]
    assert not drawn["curves"].axes[0].collections
    assert not drawn["curves"].get_suptitle()


def test_a_wide_interval_does_not_hide_the_means(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"optimizer.lr": [0.1, 0.2], "seed": [0, 1]}, accuracy)
    figure = figures(compare([tmp_path / "s"]))["curves"]
    low, high = figure.axes[0].get_ylim()
    means = [line.get_ydata()[0] for line in lines(figure).values()]
    assert high - low < 4 * (max(means) - min(means))
    assert figure.get_suptitle().endswith("bands cut")


@pytest.mark.parametrize(("high", "is_cut"), [(3.1, False), (3.3, True)])
def test_only_intervals_that_leave_the_figure_are_called_cut(high: float, is_cut: bool) -> None:
    axes = new_figure("").add_subplot()
    assert set_y_limits(axes, [Dot(0, 1, 1, 1), Dot(1, 2, 1.5, high)]) is is_cut
    assert (axes.get_ylim()[1] < high) == is_cut


def test_a_loss_that_diverged_in_a_group_leaves_the_others_readable(grid: Comparison) -> None:
    worst = replace(grid.groups[-1], value=Summary(1, 1e9, None, None, None, 1e9))
    huge = replace(grid.groups[-2], value=Summary(1, 1e300, None, None, None, 1e300))
    drawn = figures(replace(grid, groups=(*grid.groups[:-2], huge, worst), metric=Metric("val/loss", mode="min")))
    assert drawn["time"].axes[0].get_yscale() == "log"
    assert drawn["time"].axes[0].get_ylim()[1] < 1e10  # the group of 1e300 is left out


def test_untrusted_names_are_drawn_literally(tmp_path: Path) -> None:
    names = ["$\\frac{", "</svg><script>alert(1)</script>", "_hidden", "a" * 150, "\u65e5\x1b[31m"]
    make_study(tmp_path / "s", {"model.hidden": names}, accuracy)
    comparison = compare([tmp_path / "s"])
    odd = [
        replace(group, settings={"hidden": f"\u65e5\u200f{number}"}) for number, group in enumerate(comparison.groups)
    ]
    for shown in (comparison, replace(comparison, groups=tuple(odd))):
        drawn = figures(shown)
        assert all("<script" not in svg(figure) for figure in (drawn["hidden"], drawn["curves"]))
    assert "hidden=_hidden" in lines(figures(comparison)["curves"])


def test_names_beyond_dejavu_sans_are_drawn_by_an_installed_font(tmp_path: Path) -> None:
    make_study(tmp_path / "s", {"model.hidden": ["猫", "狗", "鳥"], "seed": [0, 1]}, accuracy)
    (tmp_path / "fonts").mkdir()
    write_font(tmp_path / "fonts" / "sans.ttf", ASCII + "猫狗", family="Sans of a Test")
    with installed_only(tmp_path / "fonts"):
        figure = figures(compare([tmp_path / "s"]))["hidden"]
        svg(figure)  # matplotlib warns of a missing glyph, which is an error here
        save_figures({"hidden": figure}, tmp_path / "hidden.pdf")
    names = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert names == ["狗", "猫", "\N{REPLACEMENT CHARACTER}"]


def test_untrusted_labels_give_safe_unique_figure_names(grid: Comparison, tmp_path: Path) -> None:
    labels = ("time", "../../etc/x")
    groups = [replace(group, settings=dict(zip(labels, group.settings.values(), strict=True))) for group in grid.groups]
    drawn = figures(replace(grid, labels=labels, groups=tuple(groups)))
    assert list(drawn) == ["curves", "time_2", "etc_x", "heatmap", "time"]


def test_many_groups_take_bounded_room_and_time(grid: Comparison) -> None:
    first = grid.groups[0]
    groups = [
        replace(
            first,
            name=f"a={number} b={number % 7} c={number % 3}",
            settings={"a": str(number + 1), "b": str(number % 7), "c": "xyz"[number % 3]},
            value=Summary(2, 0.5 + number / 4000, 0.1, 0.4, 0.9, 0.6),
        )
        for number in range(1000)
    ]
    drawn = figures(replace(grid, labels=("a", "b", "c"), groups=tuple(groups)))
    assert list(drawn) == ["curves", "a", "b", "c", "parallel", "time"]
    assert len(drawn["parallel"].axes[0].collections[0].get_segments()) <= 300
    assert len(svg(drawn["a"])) < 100_000


@pytest.fixture(scope="module")
def twice(grid: Comparison) -> list[dict[str, Any]]:
    few = replace(grid, labels=(), groups=grid.groups[:2])
    return [figures(few), figures(few)]


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_same_comparison_gives_the_same_bytes(twice: list[dict[str, Any]], tmp_path: Path, kind: str) -> None:
    written = [save_figures(drawn, tmp_path / str(part) / f"figure.{kind}") for part, drawn in enumerate(twice)]
    contents = [{file.name: file.read_bytes() for file in files} for files in written]
    assert contents[0] == contents[1]
    names = ["figure.pdf"] if kind == "pdf" else [f"figure-curves.{kind}", f"figure-time.{kind}"]
    assert list(contents[0]) == names
    start = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}[kind]
    assert all(content.startswith(start) for content in contents[0].values())
    assert not any(b"matplotlib v" in content.lower() for content in contents[0].values())


def test_global_matplotlib_settings_are_neither_used_nor_changed(grid: Comparison) -> None:
    import matplotlib

    few = replace(grid, labels=(), groups=grid.groups[:1])
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "text.parse_math": True, "axes.grid": False}):
        with_others = svg(figures(few)["curves"])
    assert dict(matplotlib.rcParams) == before
    assert svg(figures(few)["curves"]) == with_others


def test_another_process_draws_the_same_and_imports_neither_pyplot_nor_torch(grid: Comparison) -> None:
    code = f"""
import sys
from hashlib import sha256
from pathlib import Path
from litlab.compare.comparison import compare
from litlab.compare.plots import figures
from litlab.compare.output_files import svg
assert "matplotlib" not in sys.modules
drawn = svg(figures(compare([Path({str(grid.directories[0])!r})]))["curves"])
assert not {{"matplotlib.pyplot", "torch", "optuna", "scipy.stats"}} & sys.modules.keys()
print(sha256(drawn.encode()).hexdigest())
"""
    environment = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    here = svg(figures(replace(grid, baseline=None))["curves"])
    assert done.stdout.strip() == sha256(here.encode()).hexdigest(), done.stderr


def write_plan(study: Path, **changes: Any) -> None:
    plan = yaml.safe_load((study / "study.yaml").read_text())
    (study / "study.yaml").write_text(yaml.safe_dump(plan | changes))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a search of 24 trials in which only the rate matters."""
    study = tmp_path_factory.mktemp("plots") / "search"
    axes = {"optimizer.lr": [10 ** (-power / 3) for power in range(6)], "optimizer.momentum": [0.8, 0.9]}
    axes |= {"task.label_smoothing": [0.0, 0.1]}
    make_study(study, axes, accuracy, parameters=lambda point: round(1000 * point["optimizer.lr"]))
    write_plan(study, kind="search", search={"objectives": None})
    return study


def test_a_search_has_importance_parallel_coordinates_and_a_front(search: Path) -> None:
    drawn = figures(compare([search]))
    assert list(drawn) == ["curves", "lr", "momentum", "label_smoothing", "parallel", "importance", "pareto"]
    axes = drawn["importance"].axes[0]
    shares = [bar.get_width() for bar in axes.patches]
    assert axes.get_yticklabels()[-1].get_text() == "lr"
    assert sum(shares) == pytest.approx(1)
    assert shares[-1] > 0.9
    assert drawn["pareto"].axes[0].get_xlabel() == "training time (s)"


def test_of_several_objectives_the_other_one_is_the_cost(search: Path) -> None:
    objectives = [{"metric": "val/accuracy", "mode": "max"}, {"metric": "parameters", "mode": "min"}]
    write_plan(search, search={"objectives": objectives})
    axes = figures(compare([search]))["pareto"].axes[0]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("parameters", "log")
    write_plan(search, search={"objectives": ["", {"metric": [], "mode": {}}, 3]})
    assert figures(compare([search]))["pareto"].axes[0].get_xlabel() == "training time (s)"


def test_where_the_importance_is_unknown_a_sentence_says_why(search: Path, grid: Comparison) -> None:
    comparison = compare([search])
    assert (missing_figures(comparison), missing_figures(grid)) == ([], [])
    alike = [replace(group, value=Summary(1, 0.5, None, None, None, 0.5)) for group in comparison.groups]
    one_setting = [replace(group, settings={"lr": group.settings["lr"]}) for group in comparison.groups]
    for groups, problem in (
        (comparison.groups[:9], "it needs at least 10 trials with a value, and there are 9"),
        (alike, "all trials have the same value"),
        (one_setting, "it needs at least two settings that vary and that all trials have"),
    ):
        without = replace(comparison, groups=tuple(groups))
        assert "importance" not in figures(without)
        assert missing_figures(without) == [f"The importance of the settings is not drawn: {problem}."]


def test_a_searched_logarithm_has_a_log_axis_and_points(tmp_path: Path) -> None:
    """The numbers themselves do not tell: these are spaced evenly."""
    rates = [0.002, 0.011, 0.019, 0.032, 0.041]
    make_study(tmp_path / "s", {"optimizer.lr": rates, "model.widths": [[2, 4], [4, 8]]}, accuracy)
    figure = figures(compare([tmp_path / "s"]))["lr"]
    assert figure.axes[0].get_xscale() == "linear"
    assert "None" not in {line.get_linestyle() for line in lines(figure).values()}
    plan = {"kind": "search", "axes": {"optimizer.lr": ["tag(log, interval(0.001, 1))"], "model.widths": ["[2,4]"]}}
    write_plan(tmp_path / "s", **plan, search={})
    drawn = figures(compare([tmp_path / "s"]))
    axes = drawn["lr"].axes[0]
    assert axes.get_xscale() == "log"
    assert {line.get_linestyle() for line in lines(drawn["lr"]).values()} == {"None"}
    assert list(lines(drawn["lr"])) == ["widths=[2,4]", "widths=[4,8]"]
    assert "0.011" not in [tick.get_text() for tick in axes.get_xticklabels()]
    assert not drawn["widths"].legends, "each rate is another one"
    write_plan(tmp_path / "s", axes={"optimizer.lr": ["interval(0.001,1)"], "model.widths": []})
    figure = figures(compare([tmp_path / "s"]))["lr"]
    assert figure.axes[0].get_xscale() == "linear"
    assert {line.get_linestyle() for line in lines(figure).values()} == {"None"}


def test_pruned_runs_have_faint_curves(tmp_path: Path) -> None:
    """Curves far below the others do not take the room of these."""
    status: Any = lambda point: "completed" if point["optimizer.lr"] < 1 else "pruned"  # noqa: E731
    axes = {"optimizer.lr": [0.1, 0.2, 1.0, 2.0]}
    values = {0.1: 0.7, 0.2: 0.6, 1.0: 0.55, 2.0: -9.0}
    make_study(
        tmp_path / "s", axes, lambda point: 0.0, status=status, num_epochs=3,
        curve=lambda point, epoch: values[point["optimizer.lr"]] + 0.01 * epoch,
    )  # fmt: skip
    figure = figures(compare([tmp_path / "s"]))["curves"]
    assert list(lines(figure)) == ["lr=0.1", "lr=0.2", "2 pruned"]
    faint = [line for line in figure.axes[0].lines if line.get_alpha()]
    assert [line.get_ydata().tolist() for line in faint] == [
        pytest.approx([55, 56, 57]),
        pytest.approx([-900, -899, -898]),
    ]
    assert all(line.get_linewidth() < 1 and line.get_zorder() < 2 for line in faint)
    low, high = figure.axes[0].get_ylim()
    assert 40 < low < 55 < high < 80
    filtered = figures(compare([tmp_path / "s"], filters=["lr<1"]))["curves"]
    assert list(lines(filtered)) == ["lr=0.1", "lr=0.2"]


def test_parallel_coordinates_have_a_line_a_group_and_the_best_is_the_thickest(search: Path) -> None:
    comparison = compare([search])
    axes = figures(comparison)["parallel"].axes[0]
    (drawn,) = axes.collections
    assert drawn.get_array()[-1] == pytest.approx(100 * accuracy({"optimizer.lr": 0.1}))
    assert drawn.get_linewidths()[-1] == max(drawn.get_linewidths())
    best = drawn.get_segments()[-1]
    assert best[0].tolist() == pytest.approx([0, 0.4])  # 0.1, by factors, between 10 ** (-5 / 3) and 1
    assert len(drawn.get_segments()) == 24
