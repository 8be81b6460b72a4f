"""hydra/launcher=ray on a real Ray of a head and two nodes; in `make torture`, where there can be one."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import wait_until
from support.ray_cluster import RayCluster, missing, ray_cluster
from support.runs import TINY, train_here
from support.thorough import THOROUGH

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not THOROUGH, reason="a Ray cluster takes a minute to start: make torture"),
]

RAY = ("hydra/launcher=ray", "hydra.launcher.poll=0.5")
LONG = (*TINY, "trainer.max_epochs=300", "trainer.log_every_n_steps=1", "checkpoint.every_steps=5")
SOON = 240  # seconds: each worker imports torch, several at a time


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    if reason := missing():
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, ray_cluster(Path(folder)) as up:
        yield up


class Study:
    """A multirun on the cluster.

    Attributes:
        path: Its directory.
    """

    def __init__(self, cluster: RayCluster, project: Path, *overrides: str) -> None:
        self.path = project / "outputs" / "s"
        self._cluster, self._project = cluster, project
        self._command = [sys.executable, "-P", "-m", "litlab", "train", "-m", *overrides, *RAY, "study.name=s"]

    def start(self, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        """Start the command of the study."""
        return subprocess.Popen(
            [*self._cluster.prefix, *prefix, *self._command], cwd=self._project, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, env=self._cluster.variables,
        )  # fmt: skip

    def run(self, prefix: tuple[str, ...] = ()) -> tuple[int, str]:
        """Run the command of the study; return its exit code and output."""
        process = self.start(prefix)
        output, _ = process.communicate(timeout=2 * SOON)
        return process.returncode, output

    def runs(self) -> list[RunDirectory]:
        return [RunDirectory(path) for path in sorted(self.path.glob("0*"))]

    def statuses(self) -> list[str]:
        return [read_result(run)["status"] if run.result.exists() else "" for run in self.runs()]

    def jobs(self) -> dict[str, str]:
        """Return the status that Ray gives each submission of the study, by submission id."""
        file = self.path / ".ray" / "prefix"
        prefix = file.read_text() if file.exists() else "none"
        return {key: job["status"] for key, job in self._cluster.jobs().items() if key.startswith(f"{prefix}-")}

    def submissions(self) -> list[int]:
        """Return how often each job was submitted."""
        numbers = [key.split("-")[2] for key in self.jobs()]
        return [numbers.count(str(number)) for number in range(len(self.runs()))]


def weights(run: RunDirectory) -> str:
    return str(read_result(run)["weights"])


def logs_values(run: RunDirectory) -> bool:
    return run.last.exists() and run.metrics.read_text().count("train/loss") > 10


def test_a_killed_controller_costs_nothing(cluster: RayCluster, tmp_path: Path) -> None:
    """A study of 5 goes on without it; the same command on another host takes the jobs up. Equal to local runs."""
    study = Study(cluster, tmp_path, *TINY, "seed=0,1,2,3,4")
    controller = study.start()
    wait_until(lambda: study.submissions() == [1] * 5, SOON)
    os.kill(controller.pid, signal.SIGKILL)
    controller.communicate()
    code, output = study.run(("unshare", "--uts", "sh", "-c", 'hostname login2 && exec "$@"', "sh"))
    assert code == 0, output
    assert study.statuses() == ["completed"] * 5
    assert study.submissions() == [1] * 5
    for seed, run in enumerate(study.runs()):
        assert weights(run) == weights(train_here(tmp_path / f"local{seed}", *TINY, f"seed={seed}"))


def test_jobs_outlive_a_detached_command_and_are_cancelled_by_hand(cluster: RayCluster, tmp_path: Path) -> None:
    """Ctrl-C ends the command alone; the one that it prints stops the job, saved; the next `litlab train` ends it."""
    study = Study(cluster, tmp_path, *LONG, "seed=3")
    controller = study.start()
    wait_until(lambda: len(study.runs()) == 1 and logs_values(study.runs()[0]), SOON)
    controller.send_signal(signal.SIGINT)
    output, _ = controller.communicate(timeout=60)
    assert controller.returncode == 130, output
    (run,) = study.runs()
    assert list(study.jobs().values()) == ["RUNNING"], output
    (cancel,) = [line.split(maxsplit=1)[1] for line in output.splitlines() if line.startswith("cancel ")]
    cluster.call("bash", "-c", cancel)
    wait_until(lambda: list(study.jobs().values()) == ["STOPPED"], SOON)
    assert not run.result.exists() or study.statuses() == ["interrupted"]
    code, output = study.run()
    assert (code, study.statuses(), study.submissions()) == (0, ["completed"], [2]), output
    assert weights(run) == weights(train_here(tmp_path / "local", *LONG, "seed=3"))


def test_a_node_that_fails(cluster: RayCluster, tmp_path: Path) -> None:
    """Its job goes on elsewhere, and ends as undisturbed. It costs no retry."""
    study = Study(cluster, tmp_path, *LONG, "seed=5")
    controller = study.start()
    wait_until(lambda: len(study.runs()) == 1 and logs_values(study.runs()[0]), SOON)
    node = cluster.kill_node_of(str(study.runs()[0].path))
    try:
        output, _ = controller.communicate(timeout=2 * SOON)
    finally:
        cluster.start(node)
    assert (controller.returncode, study.statuses(), study.submissions()) == (0, ["completed"], [2]), output
    assert weights(study.runs()[0]) == weights(train_here(tmp_path / "local", *LONG, "seed=5"))
