"""A real SLURM cluster of two virtual nodes on this machine, which listens on loopback alone.

It needs root and Debian's packages slurm-wlm and munge.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
NODES = ("n1", "n2")
_PROGRAMS = ("slurmctld", "slurmd", "slurmstepd", "munged")
_CONFIG = """
ClusterName=litlab
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
SlurmdTimeout=10
SlurmctldTimeout=10
KillWait=30
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=2000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=2000 Gres=gpu:2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE DefaultTime=60 State=UP
"""


def missing() -> str:
    """Return the reason why there can be no cluster; empty if there can."""
    if os.getuid() != 0:
        return "SLURM's daemons need root"
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass(frozen=True)
class SlurmCluster:
    """A cluster that is up.

    Attributes:
        folder: Folder of its files.
    """

    folder: Path

    @property
    def config(self) -> Path:
        """Config file, the value of SLURM_CONF."""
        return self.folder / "slurm.conf"

    def call(self, *command: str) -> str:
        """Call a command of SLURM and return its output."""
        done = subprocess.run(
            command, capture_output=True, text=True, env=os.environ | {"SLURM_CONF": str(self.config)}
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pid(self, daemon: str) -> int:
        """Return the process id of `slurmctld`, `slurmd-n1` or `slurmd-n2`."""
        return int((self.folder / f"{daemon}.pid").read_text())

    def node_processes(self, node: str) -> list[psutil.Process]:
        """Return all processes of a node: its daemon, and its jobs with what they have started."""
        steps = [process for process in psutil.process_iter() if self._is_step(process, node)]
        processes = [psutil.Process(self.pid(f"slurmd-{node}")), *steps]
        for step in steps:
            with suppress(psutil.Error):
                processes += step.children(recursive=True)
        return processes

    def kill_node(self, node: str) -> list[psutil.Process]:
        """Kill all processes of a node, those first that would report the end of a job; return them."""
        processes = self.node_processes(node)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()
        return processes

    def _is_step(self, process: psutil.Process, node: str) -> bool:
        """Return True for the parent of a job on a node; several clusters of a machine may have jobs of one number."""
        with suppress(psutil.Error):
            return process.name() == "slurmstepd" and any(
                environment.get("SLURM_CONF") == str(self.config) and environment.get("SLURMD_NODENAME") == node
                for environment in (child.environ() for child in process.children())
            )
        return False

    def start(self, daemon: str) -> None:
        """Start a daemon by this name."""
        program, _, node = daemon.partition("-")
        subprocess.run([program, *(["-N", node] if node else []), "-f", str(self.config)], check=True)

    def wait_until_idle(self, seconds: float = 30) -> None:
        """Wait until both nodes are idle."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with suppress(AssertionError):
                if self.call("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle"] * len(NODES):
                    return
            time.sleep(0.1)
        raise TimeoutError(f"the nodes are not idle: see {self.folder}/*.log")


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """Bring a cluster up in a folder; at the end, stop all its processes by their ids, whatever has happened."""
    cluster = SlurmCluster(folder)
    for name in ("state", "munge", *(f"spool-{node}" for node in NODES)):
        (folder / name).mkdir(parents=True)
    for path in (folder / "munge", *folder.parents):  # munged wants to reach its socket as another user
        with suppress(OSError):
            path.chmod(path.stat().st_mode | 0o711)
    key = folder / "munge" / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    (folder / "gres.conf").write_text("NodeName=n[1-2] Name=gpu File=/dev/tty[0-1]\n")
    host = socket.gethostname().partition(".")[0]
    cluster.config.write_text(_CONFIG.format(folder=folder, host=host, ports=_free_ports(3)))
    try:
        munge = folder / "munge"
        subprocess.run(
            ["munged", "--force", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
             f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2"],
            check=True, capture_output=True,
        )  # fmt: skip
        for daemon in ("slurmctld", *(f"slurmd-{node}" for node in NODES)):
            cluster.start(daemon)
        cluster.wait_until_idle()
        yield cluster
    finally:
        with suppress(AssertionError):
            cluster.call("scancel", "--user=root")
        _stop(folder)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SlurmCluster]:
    """Bring a cluster up, or skip the test."""
    if reason := missing():
        pytest.skip(reason)
    with slurm_cluster(tmp_path_factory.mktemp("slurm")) as up:
        yield up


@pytest.fixture
def project(cluster: SlurmCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a project whose commands see the cluster."""
    monkeypatch.setenv("SLURM_CONF", str(cluster.config))
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def _free_ports(number: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _stop(folder: Path) -> None:
    """End the daemons of a cluster, and what its jobs have left."""
    processes = [process for process in psutil.process_iter(["name", "cmdline"]) if _belongs(process, folder)]
    for process in processes:
        with suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=10)
    for process in alive:
        with suppress(psutil.Error):
            process.send_signal(signal.SIGKILL)


def _belongs(process: psutil.Process, folder: Path) -> bool:
    """Tell whether a process is a daemon of this cluster, or a job of it."""
    try:
        return str(folder) in " ".join(process.cmdline()) or (
            process.name() in _PROGRAMS and process.environ().get("SLURM_CONF", "").startswith(str(folder))
        )
    except psutil.Error:
        return False
