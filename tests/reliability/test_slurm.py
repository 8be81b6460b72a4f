"""A study on a real SLURM cluster while its controller, daemons, nodes and workers are killed at random moments."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from reliability.report import Tally, in_torture
from support.killed_submission import MOMENTS, KillingSbatch
from support.processes import is_alive, wait_until
from support.runs import TINY, call_litlab
from support.slurm_cluster import NODES, SlurmCluster, cluster
from support.slurm_cluster import project as empty_project

from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result
from litlab.sweep.backends.slurm_job import ElementFiles, read_list

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1200), in_torture]

NUM_JOBS = 20
SECONDS = float(os.environ.get("LITLAB_TORTURE_SECONDS", "300"))  # of kills
PAUSE = (2.0, 8.0)  # seconds between two kills
OUTAGE = (0.5, 4.0)  # seconds that a daemon is down: less than the time-outs of the cluster
HANG = (12.0, 20.0)  # seconds that slurmctld is stopped: more than the 10 that its clients wait
UNSAVED = 5.0  # seconds after the start or end of a job in which SLURM may not have saved it
NO_NODES = "Requested node configuration is not available"
SMALL = (
    *TINY, "name=tried", "trainer.max_epochs=4", "checkpoint.every_steps=5",
    "callbacks.confusion_matrix=null", "callbacks.class_accuracy=null", "callbacks.reliability_diagram=null",
    "callbacks.training_images=null", "callbacks.worst_mistakes=null",
    "+callbacks.slow._target_=failing_jobs.SlowJob",
)  # fmt: skip
SLURM = ("hydra/launcher=slurm", "hydra.launcher.poll=0.5", "hydra.launcher.retries=20")


__all__ = ["cluster", "empty_project"]  # fixtures


@pytest.fixture
def project(empty_project: Path) -> Path:
    """Return the folder of a project with a module of the user."""
    shutil.copy(Path(__file__).with_name("failing_jobs.py"), empty_project)
    return empty_project


class TorturedStudy:
    """A study, its controller, and the faults that are injected into both and into the cluster.

    Attributes:
        path: Directory of the study.
        losses: Starts that the faults cost, by the name of the run.
        faults: Number of faults of each kind.
    """

    def __init__(self, cluster: SlurmCluster, project: Path, *overrides: str, seed: int = 0) -> None:
        self.path = project / "outputs" / "mine"
        self.losses: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self._cluster, self._project, self._draw = cluster, project, random.Random(seed)
        self._command = [sys.executable, "-P", "-m", "litlab", "train", "-m", "study.name=mine", *overrides]
        self._sbatch = KillingSbatch(project.parent / "bin")
        self._requeued: set[str] = set()  # elements that wait for two minutes
        self._failed_nodes: set[str] = set()
        self.log = project.parent / "log"
        self.controller = self._start_controller()

    def _start_controller(self) -> "subprocess.Popen[bytes]":
        with self.log.open("a") as log:
            return subprocess.Popen(
                self._command, cwd=self._project, stdout=log, stderr=log, env=self._sbatch.environment
            )

    def note(self, text: str) -> None:
        with self.log.open("a") as log:
            log.write(f"# {time.strftime('%H:%M:%S')} {text}\n")

    def runs(self) -> list[RunDirectory]:
        return [RunDirectory(path) for path in sorted(self.path.glob("0*"))]

    def statuses(self) -> list[str]:
        return [read_result(run)["status"] if run.result.exists() else "" for run in self.runs()]

    def starts(self) -> Counter[str]:
        """Return how often SLURM has started each job."""
        counts: Counter[str] = Counter()
        for name, files in self._elements():
            counts[name] += files.num_starts()
        return counts

    def _elements(self) -> Iterator[tuple[str, ElementFiles]]:
        """Yield the name of the run and the files of each element of an array."""
        for listed in (self.path / ".slurm").glob("*.list"):
            for index, run in enumerate(read_list(listed)):
                yield run.name, ElementFiles(listed.parent, listed.stem, index)

    def end(self) -> None:
        """Kill the controller."""
        self.controller.kill()
        self.controller.wait()

    def is_over(self) -> bool:
        """Return True if the command has ended by itself, and was not refused."""
        return self.controller.poll() not in (None, -signal.SIGKILL) and not self._is_refused()

    def _is_refused(self) -> bool:
        """Return True if the command was refused by a slurmctld that had just started and did not know its nodes."""
        return self.controller.poll() == 1 and NO_NODES in self.log.read_text()[-200:]

    def mend(self) -> None:
        """Start the same command again if it was killed; let failed nodes return, and requeued jobs start."""
        if self.controller.poll() == -signal.SIGKILL or self._is_refused():
            self.controller = self._start_controller()
        for node in list(self._failed_nodes):
            if "down" in self._call("sinfo", "-h", "-n", node, "-o", "%T"):
                self._cluster.start(f"slurmd-{node}")
                self._failed_nodes.remove(node)
        for line in self._call("squeue", "-h", "-r", "-t", "PD", "-o", "%F_%K %r").splitlines():
            element, reason = line.split(maxsplit=1)
            if reason == "BeginTime" and element in self._requeued:
                self._call("scontrol", "update", f"JobId={element}", "StartTime=now")
                self._requeued.remove(element)

    def pause(self) -> None:
        """Sleep until the next fault."""
        time.sleep(self._draw.uniform(*PAUSE))

    def inject(self) -> None:
        """Inject a fault that is drawn."""
        kinds: dict[Callable[[], None], int] = {
            self.kill_controller: 4, self.kill_controller_at_submission: 3, self.kill_slurmctld: 3,
            self.kill_slurmd: 3, self.kill_worker: 4, self.requeue: 2, self.kill_at_an_end: 3, self.fail_node: 1,
            self.hang_slurmctld: 1,
        }  # fmt: skip
        (kind,) = self._draw.choices(list(kinds), list(kinds.values()))
        kind()

    def _count(self, kind: str, *lost: str) -> None:
        self.faults[kind] += 1
        self.losses.update(lost)
        self.note(f"{kind}: {', '.join(lost)}")

    def kill_controller(self) -> None:
        self._count("controller")
        self.end()

    def kill_controller_at_submission(self) -> None:
        """Kill it when it calls sbatch: let a worker die, whose job is submitted again then."""
        self._sbatch.arm(self._draw.choice(MOMENTS))
        self._count("controller at sbatch")
        self.kill_worker()

    def kill_slurmctld(self) -> None:
        self._restart("slurmctld")

    def kill_slurmd(self) -> None:
        self._restart(f"slurmd-{self._draw.choice([node for node in NODES if node not in self._failed_nodes])}")

    def hang_slurmctld(self) -> None:
        """Stop it for longer than its clients wait: their requests are lost for them, and done later."""
        pid, began = self._cluster.pid("slurmctld"), time.time()
        os.kill(pid, signal.SIGSTOP)
        time.sleep(self._draw.uniform(*HANG))
        os.kill(pid, signal.SIGCONT)
        self._count("slurmctld stopped", *self._changed_since(began))

    def _restart(self, daemon: str) -> None:
        """Kill a daemon, and start it again before the cluster takes notice; jobs go on."""
        began = time.time()
        os.kill(self._cluster.pid(daemon), signal.SIGKILL)
        time.sleep(self._draw.uniform(*OUTAGE))
        self._cluster.start(daemon)
        self._count(daemon.partition("-")[0], *self._changed_since(began))

    def _changed_since(self, moment: float) -> set[str]:
        """Return the runs whose jobs have started or ended since shortly before: SLURM may not have saved that."""
        names = set()
        for name, files in self._elements():
            for path in files.folder.glob(f"{files.token}.{files.index}.[se]*"):  # .starts, .exit
                with suppress(OSError):
                    if path.stat().st_mtime > moment - UNSAVED:
                        names.add(name)
        return names

    def kill_worker(self) -> None:
        """Kill a worker; the controller submits its job again."""
        workers = self._workers()
        if workers:
            name, process = self._draw.choice(sorted(workers.items()))
            self._count("worker", name)
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def requeue(self) -> None:
        """Return a job to the queue, as an administrator does; `mend` spares it the two minutes of SLURM."""
        lines = [line.split() for line in self._call("squeue", "-h", "-r", "-t", "R", "-o", "%F_%K %j %K").splitlines()]
        if lines:
            element, job, index = self._draw.choice(lines)
            runs = read_list(self.path / ".slurm" / f"{job.removeprefix('litlab-')}.list")
            self._count("requeue", runs[int(index)].name)
            self._call("scontrol", "requeue", element)
            self._requeued.add(element)

    def kill_at_an_end(self) -> None:
        """Kill the controller or slurmctld at the moment at which an element of an array ends."""
        ended = set((self.path / ".slurm").glob("*.exit"))
        until = time.monotonic() + 15
        while time.monotonic() < until and not set((self.path / ".slurm").glob("*.exit")) - ended:
            time.sleep(0.005)
        time.sleep(self._draw.choice((0.0, 0.05, 0.3)))
        self._draw.choice((self.kill_controller, self.kill_slurmctld))()

    def fail_node(self) -> None:
        """Kill a node with all its processes, or cut it off, so that they go on; it returns when SLURM has noticed."""
        if self._failed_nodes:
            return
        node, began = self._draw.choice(NODES), time.time()
        processes = self._cluster.node_processes(node)
        lost = {name for name, worker in self._workers().items() if worker in processes}
        if self._draw.random() < 0.5:
            self._cluster.kill_node(node)
        else:
            os.kill(self._cluster.pid(f"slurmd-{node}"), signal.SIGKILL)
        self._count("node", *lost | self._changed_since(began))
        self._failed_nodes.add(node)

    def _workers(self) -> dict[str, psutil.Process]:
        """Return the worker process of each run that has one."""
        workers = {}
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                command = process.cmdline()
                if "litlab.training.worker" in command and Path(command[-1]).parent == self.path:
                    workers[Path(command[-1]).name] = process
        return workers

    def _call(self, *command: str) -> str:
        """Call a command of SLURM; its output is empty while the cluster does not answer."""
        try:
            return self._cluster.call(*command)
        except AssertionError:
            return ""


@pytest.mark.row(
    "study of 20 jobs on SLURM, controller, slurmctld, slurmd, nodes and workers killed for 5 min: all completed as "
    "undisturbed, none started without need"
)
def test_a_study_under_kills(cluster: SlurmCluster, project: Path, tally: Tally) -> None:
    seeds = f"seed=range({NUM_JOBS})"
    local = call_litlab(project, "train", "-m", *SMALL, "+callbacks.slow.seconds=0", "study.name=local", seeds)
    assert local.returncode == 0, local.stdout + local.stderr
    study = TorturedStudy(cluster, project, *SMALL, "+callbacks.slow.seconds=0.6", seeds, *SLURM)
    try:
        wait_until(lambda: cluster.call("squeue", "-h"), 180, study.log.read_text)
        began = time.monotonic()
        while not study.is_over() and time.monotonic() - began < SECONDS:
            study.mend()
            study.inject()
            study.pause()
        seconds = time.monotonic() - began
        until = time.monotonic() + 600
        while not study.is_over():
            assert time.monotonic() < until, study.log.read_text()
            study.mend()
            study.pause()
    finally:
        study.end()
    output, starts = study.log.read_text(), study.starts()
    locals_ = [RunDirectory(project / "outputs" / "local" / run.path.name) for run in study.runs()]
    equal = [
        read_result(run)["status"] == "completed" and read_result(run)["weights"] == read_result(other)["weights"]
        for run, other in zip(study.runs(), locals_, strict=True)
    ]
    excess = {name: number for name, number in starts.items() if number > 1 + study.losses[name]}
    counts = ", ".join(f"{number} {kind}" for kind, number in sorted(study.faults.items()))
    tally.count(
        sum(equal), NUM_JOBS,
        f"{seconds:.0f} s of faults ({counts}); {sum(starts.values())} starts, at most "
        f"{NUM_JOBS + sum(study.losses.values())} allowed",
    )  # fmt: skip
    assert study.controller.returncode == 0, output
    assert study.statuses() == ["completed"] * NUM_JOBS, output
    assert all(equal), output
    assert not excess, f"{excess}, losses {study.losses}\n{output}"


@pytest.mark.row("rank blocked in a collective, job cancelled: ended within 90 s, not started again, no process left")
def test_a_blocked_rank(cluster: SlurmCluster, project: Path, tally: Tally) -> None:
    """One of two ranks is stopped; the other waits for it and can't save. SLURM kills both after KillWait, 30 s."""
    study = TorturedStudy(
        cluster, project, *SMALL, "+callbacks.slow.seconds=0.5", "trainer.devices=2", "seed=0", *SLURM
    )
    try:
        wait_until(lambda: study.runs() and study.runs()[0].last.exists(), 180, study.log.read_text)
        (run,) = study.runs()
        owner = int((run.path / ".lock").read_text().split()[1])
        ranks = psutil.Process(owner).children()
        assert len(ranks) == 2
        ranks[1].suspend()
        time.sleep(2)
        cluster.call("scancel", "--user=root")
        began = time.monotonic()
        while study.controller.poll() is None and time.monotonic() - began < 180:
            with suppress(psutil.NoSuchProcess):
                ranks[1].suspend()  # again: SLURM continues the processes that it signals
            time.sleep(0.001)
        seconds = time.monotonic() - began
    finally:
        study.end()
    is_passed = seconds < 90 and study.statuses() == ["cancelled"]
    tally.count(int(is_passed), 1, f"{seconds:.0f} s")
    assert is_passed, study.log.read_text()
    assert list(study.starts().values()) == [1]
    assert not [rank for rank in ranks if is_alive(rank.pid)]
