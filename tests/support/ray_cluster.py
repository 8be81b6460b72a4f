"""A real Ray cluster of a head and two nodes on this machine, in a network namespace of its own.

Ray asks for an outside address when it starts and listens on all interfaces of its nodes, hence the namespace. It needs
root, `ip` and Ray, which is no dependency of litlab: the command `ray` on the PATH, or the one that LITLAB_RAY names.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

NODES = ("127.0.0.2", "127.0.0.3")  # with a core each; the head has none
ADDRESS = "http://127.0.0.1:8265"
_LIST = """
import json
from dataclasses import asdict
from litlab.sweep.backends.ray_api import RayClient
print(json.dumps({key: asdict(job) for key, job in RayClient(None).jobs().items()}))
"""


def missing() -> str:
    """Return the reason why there can be no cluster; empty if there can."""
    if os.getuid() != 0:
        return "a network namespace needs root"
    if shutil.which("ip") is None:
        return "not installed: ip"
    return "" if _command() else "not installed: ray, or name the command by LITLAB_RAY"


def _command() -> str | None:
    return os.environ.get("LITLAB_RAY") or shutil.which("ray")


@dataclass(frozen=True)
class RayCluster:
    """A cluster that is up.

    Attributes:
        folder: Folder of its files; its path has to be short, since sockets are below it.
        namespace: Name of its network namespace.
    """

    folder: Path
    namespace: str
    variables: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        token = self.folder / "token"
        token.write_text(secrets.token_hex(32))
        token.chmod(0o600)
        path = f"{Path(str(_command())).parent}{os.pathsep}{os.environ['PATH']}"
        variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_ADDRESS": ADDRESS, "PATH": path}
        object.__setattr__(self, "variables", {**os.environ, **variables})

    @property
    def prefix(self) -> list[str]:
        """Words before a command that is to run in the namespace."""
        return ["ip", "netns", "exec", self.namespace]

    def call(self, *command: str) -> str:
        """Run a command in the namespace, and return its output."""
        done = subprocess.run([*self.prefix, *command], capture_output=True, text=True, env=self.variables, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def jobs(self) -> dict[str, dict[str, Any]]:
        """Return what Ray says of all jobs, by submission id."""
        jobs: dict[str, dict[str, Any]] = json.loads(self.call(sys.executable, "-P", "-c", _LIST))
        return jobs

    def start(self, address: str) -> None:
        """Start a node, or the head."""
        is_head = address not in NODES
        options = (
            ["--head", "--port=6379", "--include-dashboard=true", "--dashboard-host=127.0.0.1", "--num-cpus=0",
             f"--temp-dir={self.folder / 'tmp'}"]
            if is_head
            else ["--address=127.0.0.1:6379", "--num-cpus=1"]
        )  # fmt: skip
        # What a node has in its environment, its jobs would inherit.
        strangers = {"RANK": "3", "WORLD_SIZE": "4", "LITLAB_PARENT": "1", "CUDA_VISIBLE_DEVICES": "0"}
        variables = {key: value for key, value in self.variables.items() if key != "RAY_ADDRESS"}
        done = subprocess.run(
            [*self.prefix, str(_command()), "start", f"--node-ip-address={address}", "--object-store-memory=80000000",
             "--num-gpus=0", "--disable-usage-stats", *options],
            env=variables | strangers | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_raylet_start_wait_time_s": "150"},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr

    def _processes(self) -> list[psutil.Process]:
        pids = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True).stdout.split()
        processes = []
        for pid in pids:
            with suppress(psutil.NoSuchProcess):
                processes.append(psutil.Process(int(pid)))
        return processes

    def kill_node_of(self, text: str) -> str:
        """Kill all processes of the node that runs a job whose command contains a text; return its address."""
        lines = {process: " ".join(process.cmdline()) for process in self._processes()}
        worker = next(process for process, line in lines.items() if f"litlab.training.worker {text}" in line)
        raylet = next(process for process in worker.parents() if process.name() == "raylet")
        (address,) = (node for node in NODES if f"--node_ip_address={node}" in lines[raylet])
        for process in (raylet, *raylet.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return address

    def stop(self) -> None:
        """End all processes in the namespace."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.Error):
                process.terminate()
        psutil.wait_procs(processes, timeout=5)
        for process in self._processes():
            with suppress(psutil.Error):
                process.kill()


@contextmanager
def ray_cluster(folder: Path) -> Iterator[RayCluster]:
    """Bring a cluster up; at the end, stop all its processes by their ids, whatever has happened."""
    namespace = f"litlab-ray-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", namespace], check=True)
    cluster = RayCluster(folder, namespace)
    try:
        subprocess.run(["ip", "-n", namespace, "link", "set", "lo", "up"], check=True)
        cluster.start("127.0.0.1")
        for node in NODES:
            cluster.start(node)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with suppress(AssertionError):
                cluster.jobs()
                break
            time.sleep(0.5)
        yield cluster
    finally:
        cluster.stop()
        subprocess.run(["ip", "netns", "del", namespace], check=True)
