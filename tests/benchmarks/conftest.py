"""One thread for all benchmarks: several would wait for each other on shared cores."""

from collections.abc import Iterator

import pytest

from benchmarks import data_path


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with data_path.threads(1):
        yield
