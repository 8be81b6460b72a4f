"""What these tests share: processes that none of them leaves behind, and runs that nobody disturbed."""

from collections.abc import Callable, Iterator

import pytest
from reliability import counting
from reliability.counting import Tally
from reliability.runs import Reference, small_run
from reliability.workers import Workers


def pytest_configure(config: pytest.Config) -> None:
    counting.register(config)


@pytest.fixture(autouse=True)
def _row(request: pytest.FixtureRequest) -> None:
    (marker,) = request.node.iter_markers("row")
    request.node.user_properties.append(("row", marker.args[0]))


@pytest.fixture
def tally(request: pytest.FixtureRequest) -> Tally:
    """For a test that makes several trials."""
    return Tally(request.node.user_properties)


@pytest.fixture(scope="session")
def _all_workers() -> Iterator[Workers]:
    workers = Workers()
    yield workers
    workers.end_all()


@pytest.fixture
def workers(_all_workers: Workers) -> Iterator[Workers]:
    """Starts processes; what is left of them is killed after the test."""
    yield _all_workers
    _all_workers.end_all()


@pytest.fixture(scope="session")
def reference(_all_workers: Workers, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Reference]:
    """The outcome of an uninterrupted run with these overrides; each is made once."""
    known: dict[tuple[str, ...], Reference] = {}

    def make(*overrides: str) -> Reference:
        if overrides not in known:
            run = small_run(tmp_path_factory.mktemp("reference") / "run", *overrides)
            worker = _all_workers.forked(run)
            assert worker.wait() == 0, worker.said()
            known[overrides] = Reference.of(run)
        return known[overrides]

    return make
