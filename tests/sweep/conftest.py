"""A pool that has started, for all tests of a module."""

import resource
from collections.abc import Iterator

import pytest

from litlab.sweep.local.pool import LocalPool, PoolSettings


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    """Two jobs at a time, whatever the machine has. Nothing that crashes in it leaves a file."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, before[1]))
    started = LocalPool(PoolSettings(jobs=2, jobs_per_device=1, timeout=None, retries=0))
    resource.setrlimit(resource.RLIMIT_CORE, before)
    started.check([])  # waits until it is ready
    yield started
    started.close()
