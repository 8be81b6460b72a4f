"""Fixtures of the reliability tests: worker processes, reference runs and the table of results."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from reliability import report
from reliability.report import Tally
from reliability.runs import EVERY_2, GetReference, Reference, small_run
from reliability.workers import Workers

from litlab.runs.directory import RunDirectory


def pytest_configure(config: pytest.Config) -> None:
    report.register(config)


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest) -> None:
    (marker,) = request.node.iter_markers("row")
    request.node.user_properties.append(("row", marker.args[0]))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """Count the trials of a test that makes several."""
    return Tally(request.node.user_properties)


@pytest.fixture(scope="session")
def _all_workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.end_all()


@pytest.fixture
def workers(_all_workers: Workers) -> Iterator[Workers]:
    """Start processes, and kill what is left of them after the test."""
    yield _all_workers
    _all_workers.end_all()


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Create the directory of a run that saves every second step."""
    return small_run(tmp_path / "run", *EVERY_2)


@pytest.fixture(scope="session")
def reference(_all_workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> GetReference:
    """Train without interruption, once for the same overrides."""

    @cache
    def train(*overrides: str) -> Reference:
        run = small_run(tmp_path_factory.mktemp("reference") / "run", *overrides)
        _all_workers.resume(run)
        return Reference.of(run)

    return train
