"""hydra/launcher=slurm on a real SLURM of two virtual nodes; skipped where there can be none."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.killed_submission import MOMENTS, KillingSbatch
from support.processes import wait_until
from support.runs import TINY, call_litlab, train_here
from support.slurm_cluster import SlurmCluster

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.sweep.backends.slurm import RESTART_SECONDS
from litlab.sweep.backends.slurm_job import read_list

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SLURM = ("hydra/launcher=slurm", "hydra.launcher.poll=0.5")
LONG = (*TINY, "trainer.max_epochs=300", "trainer.log_every_n_steps=1", "checkpoint.every_steps=5")
SOON = 180  # seconds: each worker imports torch, several at a time


class Study:
    """A multirun on the cluster.

    Attributes:
        path: Its directory.
    """

    def __init__(self, project: Path, *overrides: str) -> None:
        self.path = project / "outputs" / "s"
        self._project = project
        self._command = [sys.executable, "-P", "-m", "litlab", "train", "-m", *overrides, *SLURM, "study.name=s"]

    def start(self, *prefix: str) -> "subprocess.Popen[str]":
        """Start the command of the study."""
        return subprocess.Popen(
            [*prefix, *self._command], cwd=self._project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *prefix: str) -> tuple[int, str]:
        """Run the command of the study; return its exit code and output."""
        process = self.start(*prefix)
        output, _ = process.communicate(timeout=SOON)
        return process.returncode, output

    def runs(self) -> list[RunDirectory]:
        return [RunDirectory(path) for path in sorted(self.path.glob("0*"))]

    def statuses(self) -> list[str]:
        return [read_result(run)["status"] if run.result.exists() else "" for run in self.runs()]

    def starts(self) -> list[int]:
        """Return how often SLURM has started each job."""
        lists = sorted((self.path / ".slurm").glob("*.list"), key=lambda path: path.stat().st_mtime)
        counts = dict.fromkeys((run.path for run in self.runs()), 0)
        for listed in lists:
            for index, run in enumerate(read_list(listed)):
                file = listed.with_suffix(f".{index}.starts")
                counts[run] += len(file.read_text().splitlines()) if file.exists() else 0
        return list(counts.values())


def num_starts(run: RunDirectory) -> int:
    """Return how often SLURM has started a single run."""
    return sum(len(file.read_text().splitlines()) for file in run.path.glob(".slurm/*.starts"))


def weights(run: RunDirectory) -> str:
    return str(read_result(run)["weights"])


def logs_values(run: RunDirectory, number: int = 3) -> bool:
    return run.metrics.exists() and run.metrics.read_text().count("train/loss") >= number


def elements(cluster: SlurmCluster) -> dict[str, str]:
    """Return the ids of the jobs in the queue, with their states."""
    lines = cluster.call("squeue", "--array", "--noheader", "--format=%F_%K %T").splitlines()
    return dict(line.split() for line in lines)


def test_a_killed_controller_costs_nothing(cluster: SlurmCluster, project: Path, tmp_path: Path) -> None:
    """A study of 5 goes on without it; the same command on another host takes the jobs up. Equal to local runs."""
    study = Study(project, *TINY, "seed=0,1,2,3,4")
    controller = study.start()
    wait_until(lambda: len(elements(cluster)) == 5, SOON)
    os.kill(controller.pid, signal.SIGKILL)
    controller.communicate()
    code, output = study.run("unshare", "--uts", "sh", "-c", 'hostname login2 && exec "$@"', "sh")
    assert code == 0, output
    assert study.statuses() == ["completed"] * 5
    assert study.starts() == [1] * 5
    nodes = {line.split()[-1] for file in (study.path / ".slurm").glob("*.starts") for line in [file.read_text()]}
    assert nodes == {"n1", "n2"}
    local = train_here(tmp_path / "local", *TINY, "seed=3")
    assert weights(study.runs()[3]) == weights(local)


def test_a_controller_that_is_killed_while_it_submits(
    cluster: SlurmCluster, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the list and sbatch, while sbatch works, before it answers: the next command starts each job once."""
    sbatch = KillingSbatch(tmp_path / "bin")
    monkeypatch.setenv("PATH", sbatch.environment["PATH"])
    studies = []
    for moment in MOMENTS:
        (project / moment).mkdir()
        studies.append(Study(project / moment, *TINY, "seed=0"))
        sbatch.arm(moment)
        code, output = studies[-1].run()
        assert code == -signal.SIGKILL, output
    controllers = [study.start() for study in studies]
    for study, controller in zip(studies, controllers, strict=True):
        output, _ = controller.communicate(timeout=SOON)
        assert controller.returncode == 0, output
        assert (study.statuses(), study.starts()) == (["completed"], [1]), output
    assert [len(list(study.path.glob(".slurm/*.list"))) for study in studies] == [2, 1, 1]


def test_cancelled_requeued_and_warned_jobs(cluster: SlurmCluster, project: Path, tmp_path: Path) -> None:
    """One that somebody cancels is not started again. The others save, return to the queue and end as undisturbed."""
    study = Study(project, *LONG, "seed=0,1,2")
    controller = study.start()
    wait_until(lambda: len(study.runs()) == 3 and all(map(logs_values, study.runs())), SOON)
    cancelled, requeued, warned = sorted(elements(cluster))
    cluster.call("scancel", cancelled)
    cluster.call("scontrol", "requeue", requeued)
    cluster.call("scancel", "--batch", "--signal=USR1", warned)  # as --signal does before the time limit
    wait_until(lambda: elements(cluster).get(requeued) == "PENDING", 60)
    time.sleep(RESTART_SECONDS)
    cluster.call("scontrol", "update", f"JobId={requeued}", "StartTime=now")  # SLURM would wait for two minutes
    output, _ = controller.communicate(timeout=SOON)
    assert controller.returncode == 1, output
    assert study.statuses() == ["cancelled", "completed", "completed"], output
    assert study.starts() == [1, 2, 2]
    assert "0000_seed-0: cancelled" in output
    for seed, run in list(enumerate(study.runs()))[1:]:
        assert weights(run) == weights(train_here(tmp_path / str(seed), *LONG, f"seed={seed}"))


def test_a_node_that_fails(cluster: SlurmCluster, project: Path, tmp_path: Path) -> None:
    """SLURM starts its job again on the other node, and it ends as undisturbed. It costs no retry."""
    study = Study(project, *LONG, "seed=5")
    controller = study.start()
    wait_until(lambda: len(study.runs()) == 1 and logs_values(study.runs()[0]), SOON)
    node = cluster.call("squeue", "--noheader", "--format=%N").strip()
    try:
        cluster.kill_node(node)
        output, _ = controller.communicate(timeout=400)
    finally:
        cluster.start(f"slurmd-{node}")
        cluster.wait_until_idle()
    assert controller.returncode == 0, output
    assert study.starts() == [2]
    assert weights(study.runs()[0]) == weights(train_here(tmp_path / "local", *LONG, "seed=5"))


def test_two_nodes_are_two_local_ranks(cluster: SlurmCluster, project: Path, tmp_path: Path) -> None:
    """By a single command that submits and waits."""
    command = [sys.executable, "-P", "-m", "litlab", "train", *TINY, *SLURM, "trainer.num_nodes=2", "trainer.devices=1"]
    done = subprocess.run([*command, "hydra.run.dir=two"], cwd=project, capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunDirectory(project / "two")
    provenance = json.loads(run.provenance.read_text())
    assert provenance["machine"]["ranks"] == 2
    local = [sys.executable, "-P", "-m", "litlab", "train", *TINY, "trainer.devices=2", "hydra.run.dir=local"]
    subprocess.run(local, cwd=project, check=True, capture_output=True, timeout=SOON)
    assert weights(run) == weights(RunDirectory(project / "local"))


def test_two_nodes_save_when_warned_and_when_cancelled(cluster: SlurmCluster, project: Path) -> None:
    """Warned, the job returns to the queue; once cancelled, the next command continues it. It ends as undisturbed."""
    epochs = (*LONG, "trainer.max_epochs=60")  # two ranks are slow on the cores that the nodes share
    study = Study(project, *epochs, "trainer.num_nodes=2", "trainer.devices=1")
    controller = study.start()
    wait_until(lambda: len(study.runs()) == 1 and logs_values(study.runs()[0]), SOON)
    (job,) = elements(cluster)
    (run,) = study.runs()
    cluster.call("scancel", "--batch", "--signal=USR1", job)
    wait_until(lambda: elements(cluster).get(job) == "PENDING", SOON)
    saved = run.metrics.read_text().count("train/loss")
    wait_until(lambda: logs_values(run, saved + 3), SOON)
    cluster.call("scancel", job)
    output, _ = controller.communicate(timeout=SOON)
    assert (controller.returncode, study.statuses(), study.starts()) == (1, ["cancelled"], [2]), output
    code, output = study.run()
    assert (code, study.statuses(), study.starts()) == (0, ["completed"], [3]), output
    local = [sys.executable, "-P", "-m", "litlab", "train", *epochs, "trainer.devices=2", "hydra.run.dir=local"]
    subprocess.run(local, cwd=project, check=True, capture_output=True, timeout=SOON)
    assert weights(run) == weights(RunDirectory(project / "local"))


def test_a_single_run_is_resumed_in_the_queue(cluster: SlurmCluster, project: Path, tmp_path: Path) -> None:
    """A command waits for one that was detached, and submits one that was stopped on this machine."""
    litlab = [sys.executable, "-P", "-m", "litlab"]
    train, resume = [*litlab, "train", *LONG], [*litlab, "resume"]
    detached = [*train, "hydra.run.dir=run", *SLURM, "--detach"]
    done = subprocess.run(detached, cwd=project, capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run([*resume, "run", *SLURM], cwd=project, capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stdout + done.stderr
    submitted = RunDirectory(project / "run")
    assert (read_result(submitted)["status"], num_starts(submitted)) == ("completed", 1)

    run = RunDirectory(project / "here")
    worker = subprocess.Popen([*train, "hydra.run.dir=here"], cwd=project, stdout=subprocess.DEVNULL)
    wait_until(lambda: logs_values(run), SOON)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(SOON) == 130
    done = subprocess.run([*resume, "here", *SLURM], cwd=project, capture_output=True, text=True, timeout=SOON)
    assert done.returncode == 0, done.stdout + done.stderr
    assert num_starts(run) == 1
    assert weights(run) == weights(submitted)


def test_decide_goes_on_after_its_command_is_killed(cluster: SlurmCluster, project: Path, tmp_path: Path) -> None:
    """Its jobs end in the queue; the same command takes them up, with the decisions of a local study."""
    settings = (
        *TINY, "hydra/sweeper=decide", "optimizer.lr=0.1,1e-9", "hydra.sweeper.baseline=optimizer.lr=0.1",
        "hydra.sweeper.seeds_max=4", "hydra.launcher.jobs=4", "objective={metric: val/loss, mode: min}",
    )  # fmt: skip
    study = Study(project, *settings)
    controller = study.start()
    wait_until(lambda: study.statuses().count("completed") >= 2, SOON)
    os.kill(controller.pid, signal.SIGKILL)
    controller.communicate()
    code, output = study.run()
    assert code == 0, output
    assert set(study.starts()) == {1}
    local = call_litlab(tmp_path, "train", "-m", *settings, "study.name=s")
    assert local.returncode == 0, local.stderr
    answers = [json.loads((path / "decision.json").read_text()) for path in (study.path, tmp_path / "outputs" / "s")]
    for answer in answers:
        del answer["runs"]  # how many ran ahead depends on time
    assert answers[0] == answers[1]
    assert answers[0]["sentence"] in " ".join(output.split())
