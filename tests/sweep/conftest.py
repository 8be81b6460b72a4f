"""Fixtures: a started pool for all tests of a module, and a reference run."""

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from support.pool_jobs import PATIENCE, new_job, quick_config

from litlab.runs.directory import RunDirectory
from litlab.sweep.backends.local import LocalPool, PoolSettings


@pytest.fixture(scope="module")
def pool() -> Iterator[LocalPool]:
    """Start a pool of two jobs at once."""
    started = LocalPool(PoolSettings(jobs=2, jobs_per_device=1, timeout=None, retries=0))
    started.check([])  # waits until it is ready
    yield started
    started.close()


@pytest.fixture(scope="module")
def fresh(pool: LocalPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RunDirectory]]:
    """Start a run of two ranks that are no forks; it trains while the tests run."""
    job = new_job(tmp_path_factory.mktemp("fresh"), 0, quick_config(devices=2))
    command = [sys.executable, "-P", "-m", "litlab.training.worker", str(job.run.path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0)

    def wait_for() -> RunDirectory:
        assert process.wait(timeout=PATIENCE) == 0
        return job.run

    yield wait_for
    process.kill()
    process.wait()
