"""Costs of a study on SLURM by its number of jobs: those of the controller, whose jobs are tiny shell programs.

The cluster is the one of SLURM_CONF. Without one, and with SLURM's daemons installed, root brings one up on loopback.
"""

import importlib
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.harness import Row, temporary_folder
from benchmarks.runs import compose_config
from benchmarks.settings import Settings
from litlab.config.schema import Slurm
from litlab.process.signals import StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.files import write_json
from litlab.sweep.backends.base import Job
from litlab.sweep.backends.slurm import SlurmBackend
from litlab.sweep.display import Display
from litlab.sweep.multirun import JobQueue
from litlab.sweep.scheduler import Scheduler

NO_SLURM = "size: no rows of SLURM, since there is no cluster, and only root can bring one up, with slurm-wlm and munge"
POLL = 5.0  # seconds between two looks at the queue, the default
# Lines before the worker: they complete the job and end, so that no worker starts.
_STUB = """\
cd '{folder}' && list=.slurm/${{SLURM_JOB_NAME#litlab-}} index=$SLURM_ARRAY_TASK_ID
echo start >> $list.$index.starts
cp result.json "$(sed -n "$((index + 1))p" $list.list)"
echo 0 > $list.$index.exit
exit 0"""


def rows(settings: Settings) -> list[Row]:
    """Measure a study whose jobs only write their result; nothing without a cluster."""
    if why_not():
        print(NO_SLURM, file=sys.stderr)
        return []
    with cluster():
        costs = [measure(settings.num_queued) for _ in range(settings.num_sizes)]
    name = f"SLURM, {settings.num_queued:,} jobs"
    units = {
        "submitted": "s", "controller, core time": "s", "calls of sbatch": "calls", "calls of squeue": "calls",
        "whole study": "s",
    }  # fmt: skip
    return [Row(f"{name}: {what}", unit, tuple(cost[what] for cost in costs)) for what, unit in units.items()]


def why_not() -> str:
    """Return the reason why there is no cluster; empty if there is one, or can be."""
    return "" if _is_up() else str(_support().missing())


def measure(number: int) -> dict[str, float]:
    """Run a study of so many jobs; return what it costs.

    Returns:
        Seconds until SLURM has all jobs, core seconds of this process and of the commands that it calls, calls of each
        command, and seconds until the last job is reported.
    """
    with temporary_folder() as folder:
        jobs = _make_jobs(folder, number)
        backend = _CountingBackend(folder)
        source, stop = JobQueue(jobs, number), StopRequest()
        used, began = _core_seconds(), time.perf_counter()
        with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), Display("study", number) as display:
            scheduler = Scheduler(source, backend, display, 0, stop)
            scheduler.run()
        seconds = time.perf_counter() - began
        failed = [outcome for outcome in scheduler.outcomes.values() if not outcome.is_success]
        if failed or len(scheduler.outcomes) != number:
            raise RuntimeError(f"{len(failed)} of {number} jobs failed: {failed[:1]}")
        return {
            "submitted": backend.submitted - began,
            "controller, core time": _core_seconds() - used,
            "calls of sbatch": backend.calls["sbatch"],
            "calls of squeue": backend.calls["squeue"],
            "whole study": seconds,
        }


class _CountingBackend(SlurmBackend):
    """Backend that counts its calls of SLURM's commands, and records when the last sbatch has answered."""

    def __init__(self, folder: Path) -> None:
        settings = Slurm(
            backend="slurm", jobs=None, partition=None, account=None, qos=None, time=None, cpus=1, gpus=None,
            gres="gpu", mem=None, constraint=None, exclude=None, options=[], setup=[_STUB.format(folder=folder)],
            warning=60, poll=POLL, retries=0, detach=False, dry_run=False,
        )  # fmt: skip
        super().__init__(settings, folder)
        self.calls: Counter[str] = Counter()
        self.submitted = 0.0

    def _call(self, *command: str, **arguments: Any) -> str:
        output = super()._call(*command, **arguments)
        self.calls[command[0]] += 1
        if command[0] == "sbatch":
            self.submitted = time.perf_counter()
        return output


def _make_jobs(folder: Path, number: int) -> list[Job]:
    config = compose_config("data=shapes", "trainer=cpu")
    write_json(folder / "result.json", {"status": "completed", "objective": 0.5, "error": None, "seconds": {}})
    runs = [RunDirectory(folder / f"{index:04d}") for index in range(number)]
    for run in runs:
        run.path.mkdir()
    return [Job(index, run, config) for index, run in enumerate(runs)]


def _core_seconds() -> float:
    return sum(os.times()[:4])


def _is_up() -> bool:
    try:
        return subprocess.run(["sinfo", "--noheader"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _support() -> Any:
    """Import the cluster of the tests, which are not on the path of `python -m benchmarks`."""
    if (tests := str(Path(__file__).parents[1] / "tests")) not in sys.path:
        sys.path.append(tests)
    return importlib.import_module("support.slurm_cluster")


@contextmanager
def cluster() -> Iterator[None]:
    """Make sure that there is a cluster, and that SLURM_CONF names it."""
    if _is_up():
        yield
        return
    before = os.environ.get("SLURM_CONF")
    with temporary_folder() as folder, _support().slurm_cluster(folder) as cluster:
        os.environ["SLURM_CONF"] = str(cluster.config)
        try:
            yield
        finally:
            if before is None:
                del os.environ["SLURM_CONF"]
            else:
                os.environ["SLURM_CONF"] = before
