"""A pool that has started, for all tests of a module, and what its jobs are held against."""

import resource
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from support.pool_jobs import PATIENCE, new_job, quick_config

from litlab.runs.directory import RunDirectory
from litlab.sweep.backends.local import LocalPool, PoolSettings


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


@pytest.fixture(scope="module")
def fresh(pool: LocalPool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], RunDirectory]]:
    """A run of two ranks, none of which is a fork; it trains while the other tests do."""
    job = new_job(tmp_path_factory.mktemp("fresh"), 0, quick_config(devices=2))
    command = [sys.executable, "-P", "-m", "litlab.training.worker", str(job.run.path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, process_group=0)

    def wait_for() -> RunDirectory:
        assert process.wait(timeout=PATIENCE) == 0
        return job.run

    yield wait_for
    process.kill()
    process.wait()
