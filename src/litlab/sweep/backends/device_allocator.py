"""Which devices of this machine a job takes, and whether they are free. Numbers only: no process, no file."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from litlab.sweep.backends.base import Config

ALL = ("auto", -1)  # trainer.devices that take all there are


@dataclass(frozen=True)
class Machine:
    """
    Attributes:
        gpus: how CUDA_VISIBLE_DEVICES calls them, in the order in which processes here see them.
        cores: that processes here may use.
    """

    gpus: tuple[str, ...]
    cores: int


@dataclass(frozen=True)
class Lease:
    """What one job holds.

    Attributes:
        kind: of its devices; `alone` for those of a kind that can't be told apart: one such job at a time.
        gpus: their places in `Machine.gpus`.
        cores: that its threads keep busy; counted for CPU jobs only.
        visible: its CUDA_VISIBLE_DEVICES; None to leave it as it is.
    """

    kind: Literal["gpu", "cpu", "alone"]
    gpus: tuple[int, ...]
    cores: int
    visible: str | None


class Leases:
    """The devices of a machine and who holds them."""

    def __init__(self, machine: Machine, *, jobs: int | None, jobs_per_device: int) -> None:
        """
        Args:
            jobs: that may run at once; None: as many as there are devices for.
            jobs_per_device: that may share a GPU.
        """
        self.machine = machine
        self._jobs = jobs
        self._jobs_per_device = jobs_per_device
        self._held: list[Lease] = []

    def objections(self, config: Config) -> list[str]:
        """Why a job of this config can never run here."""
        trainer, machine = config["trainer"], self.machine
        devices, found = trainer["devices"], []
        if trainer["num_nodes"] > 1:
            found.append(
                f"trainer.num_nodes={trainer['num_nodes']}: the pool is one machine; expected trainer.num_nodes=1"
            )
        kind = self._kind(config)
        there = _count(len(machine.gpus), "GPU") if kind == "gpu" else _count(machine.cores, "CPU core")
        if kind == "gpu" and not machine.gpus:
            found.append(f"trainer.accelerator={trainer['accelerator']}: this machine has no GPU that CUDA can use")
        elif kind == "gpu" and isinstance(devices, list):
            if max(devices) >= len(machine.gpus):
                found.append(f"trainer.devices={devices}: this machine has {there}, numbered from 0")
        elif kind != "alone" and self._ranks(config) > (len(machine.gpus) if kind == "gpu" else machine.cores):
            found.append(f"trainer.devices={devices}: this machine has {there}")
        return found

    def parallel(self, config: Config, num_jobs: int) -> int:
        """How many of so many jobs like this one would run at once; at least one."""
        if self._jobs is not None:
            return self._jobs
        kind, ranks = self._kind(config), self._ranks(config)
        if kind == "alone":
            return 1
        room = len(self.machine.gpus) * self._jobs_per_device if kind == "gpu" else self.machine.cores
        return max(1, min(num_jobs, room // ranks))

    def threads(self, config: Config, num_jobs: int) -> int:
        """For a process of this job: what the config says, else its share of the cores."""
        share = self.machine.cores // (self.parallel(config, num_jobs) * self._ranks(config))
        return int(config["threads"] or max(1, share))

    def find(self, config: Config) -> Lease | None:
        """What a job of this config would get now; None if it has to wait."""
        if self._jobs is not None and len(self._held) >= self._jobs:
            return None
        kind = self._kind(config)
        if kind == "gpu":
            return self._find_gpus(config["trainer"]["devices"])
        if kind == "alone":
            return None if any(lease.kind == kind for lease in self._held) else Lease(kind, (), 0, None)
        cores = min(self.machine.cores, int(config["threads"] or 1) * self._ranks(config))
        if self._jobs is None and cores > self.machine.cores - sum(lease.cores for lease in self._held):
            return None
        return Lease(kind, (), cores, "" if config["trainer"]["accelerator"] == "cpu" else None)

    def take(self, lease: Lease) -> None:
        self._held.append(lease)

    def give_back(self, lease: Lease) -> None:
        self._held.remove(lease)

    def _find_gpus(self, devices: int | str | list[int]) -> Lease | None:
        """The least loaded ones. Those that the config names by number it finds in the list of all."""
        load = Counter(dict.fromkeys(range(len(self.machine.gpus)), 0))
        load.update(gpu for lease in self._held for gpu in lease.gpus)
        named = isinstance(devices, list)
        wanted = devices if isinstance(devices, list) else list(load) if devices in ALL else None
        if wanted is None:
            wanted = sorted(sorted(load, key=lambda gpu: (load[gpu], gpu))[: int(str(devices))])
        if any(load[gpu] >= self._jobs_per_device for gpu in wanted):
            return None
        visible = None if named else ",".join(self.machine.gpus[gpu] for gpu in wanted)
        return Lease("gpu", tuple(wanted), 0, visible)

    def _kind(self, config: Config) -> Literal["gpu", "cpu", "alone"]:
        accelerator = config["trainer"]["accelerator"]
        if accelerator in ("gpu", "cuda"):
            return "gpu"
        if accelerator == "auto":
            return "gpu" if self.machine.gpus else "cpu"
        return "cpu" if accelerator == "cpu" else "alone"

    def _ranks(self, config: Config) -> int:
        devices = config["trainer"]["devices"]
        if isinstance(devices, list):
            return len(devices)
        if devices in ALL:
            return max(1, len(self.machine.gpus)) if self._kind(config) == "gpu" else 1
        return int(devices)


def objections(leases: Leases, configs: Sequence[Config]) -> list[str]:
    """Each reason once."""
    return list(dict.fromkeys(line for config in configs for line in leases.objections(config)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"
