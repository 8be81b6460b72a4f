"""A study that several test files share."""

from pathlib import Path

import pytest
from support.grids import LR, SEED, WIDTHS, accuracy
from support.studies import make_study


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a study of two settings and three seeds; tests only read it."""
    path = tmp_path_factory.mktemp("grouping") / "s"
    make_study(path, {LR: [0.01, 0.05, 0.1], WIDTHS: [[2, 4], [4, 8]], SEED: [0, 1, 2]}, accuracy)
    return path
