"""Studies and figures that several test files share."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.figure_studies import RATES, SEEDS, WIDTHS, accuracy, curve
from support.grids import LR, SEED
from support.grids import WIDTHS as WIDTHS_KEY
from support.grids import accuracy as accuracy_of_grid
from support.studies import make_study

from litlab.compare.comparison import compare
from litlab.compare.data_model import Comparison
from litlab.compare.plots import figures


@pytest.fixture(scope="session")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    study = tmp_path_factory.mktemp("plots") / "grid"
    axes = {"optimizer.lr": RATES, "model.widths": WIDTHS, "seed": SEEDS}
    seconds: Any = lambda point: {"training": point["model.widths"][0] * 10.0}  # noqa: E731
    make_study(study, axes, accuracy, curve=curve, num_epochs=4, rows_per_epoch=1, seconds=seconds)
    comparison = compare([study])
    return replace(comparison, baseline=comparison.groups[-1].name)


@pytest.fixture(scope="session")
def drawn(grid: Comparison) -> dict[str, Any]:
    return figures(grid)


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a study of two settings and three seeds; tests only read it."""
    path = tmp_path_factory.mktemp("grouping") / "s"
    make_study(path, {LR: [0.01, 0.05, 0.1], WIDTHS_KEY: [[2, 4], [4, 8]], SEED: [0, 1, 2]}, accuracy_of_grid)
    return path
