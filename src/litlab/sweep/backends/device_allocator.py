"""Allocation of the devices of one machine to jobs: GPUs by number, CPU cores by count."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from litlab.sweep.backends.base import Config

ALL_DEVICES = ("auto", -1)  # values of trainer.devices
DeviceType = Literal["gpu", "cpu", "exclusive"]


@dataclass(frozen=True)
class Machine:
    """Devices of a machine that processes here may use."""

    gpus: tuple[str, ...]  # names in CUDA_VISIBLE_DEVICES, in the order in which processes here see them
    cores: int


@dataclass(frozen=True)
class Allocation:
    """Devices of one job.

    Attributes:
        device_type: Type of the devices; `exclusive` for accelerators that can't be told apart: one such job at a time.
        gpus: Indices into `Machine.gpus`.
        cores: Number of cores that its threads keep busy; 0 unless it is a CPU job.
        visible_devices: Its CUDA_VISIBLE_DEVICES; None to inherit it.
    """

    device_type: DeviceType
    gpus: tuple[int, ...]
    cores: int
    visible_devices: str | None


class DeviceAllocator:
    """Devices of a machine and their current allocations.

    Args:
        machine: Devices to allocate.
        jobs: Maximum number of jobs at once; None for as many as there are devices for.
        jobs_per_device: Maximum number of jobs that share a GPU.
    """

    def __init__(self, machine: Machine, *, jobs: int | None, jobs_per_device: int) -> None:
        self.machine = machine
        self._jobs = jobs
        self._jobs_per_device = jobs_per_device
        self._allocations: list[Allocation] = []

    def problems(self, configs: Sequence[Config]) -> list[str]:
        """Return the reasons why jobs with these configs can never run here, each once."""
        return list(dict.fromkeys(problem for config in configs for problem in self._problems(config)))

    def threads(self, config: Config, num_jobs: int) -> int:
        """Return the threads of a process of one of `num_jobs` such jobs: of its config, else a share of the cores."""
        share = self.machine.cores // (self._num_parallel(config, num_jobs) * self._num_ranks(config))
        return int(config["threads"] or max(1, share))

    def fits(self, config: Config) -> bool:
        """Return True if `allocate` would succeed."""
        return self._find(config) is not None

    def allocate(self, config: Config) -> Allocation | None:
        """Allocate devices for a job; None if it has to wait for them."""
        allocation = self._find(config)
        if allocation is not None:
            self._allocations.append(allocation)
        return allocation

    def release(self, allocation: Allocation) -> None:
        """Free the devices of a job."""
        self._allocations.remove(allocation)

    def _problems(self, config: Config) -> list[str]:
        trainer, num_gpus = config["trainer"], len(self.machine.gpus)
        devices, device_type, problems = trainer["devices"], self._device_type(config), []
        if trainer["num_nodes"] > 1:
            problems.append(
                f"trainer.num_nodes={trainer['num_nodes']}: the pool is one machine; expected trainer.num_nodes=1"
            )
        available = _count(num_gpus, "GPU") if device_type == "gpu" else _count(self.machine.cores, "CPU core")
        if device_type == "gpu" and not num_gpus:
            problems.append(f"trainer.accelerator={trainer['accelerator']}: this machine has no GPU that CUDA can use")
        elif device_type == "gpu" and isinstance(devices, list):
            if max(devices) >= num_gpus:
                problems.append(f"trainer.devices={devices}: this machine has {available}, numbered from 0")
        elif device_type != "exclusive" and self._num_ranks(config) > (
            num_gpus if device_type == "gpu" else self.machine.cores
        ):
            problems.append(f"trainer.devices={devices}: this machine has {available}")
        return problems

    def _num_parallel(self, config: Config, num_jobs: int) -> int:
        """Return how many of `num_jobs` such jobs would run at once, at least 1."""
        if self._jobs is not None:
            return self._jobs
        device_type = self._device_type(config)
        if device_type == "exclusive":
            return 1
        gpu_slots = len(self.machine.gpus) * self._jobs_per_device
        slots = gpu_slots if device_type == "gpu" else self.machine.cores
        return max(1, min(num_jobs, slots // self._num_ranks(config)))

    def _find(self, config: Config) -> Allocation | None:
        if self._jobs is not None and len(self._allocations) >= self._jobs:
            return None
        device_type = self._device_type(config)
        if device_type == "gpu":
            return self._find_gpus(config["trainer"]["devices"])
        if device_type == "exclusive":
            is_taken = any(allocation.device_type == device_type for allocation in self._allocations)
            return None if is_taken else Allocation(device_type, (), 0, None)
        cores = min(self.machine.cores, int(config["threads"] or 1) * self._num_ranks(config))
        free = self.machine.cores - sum(allocation.cores for allocation in self._allocations)
        if self._jobs is None and cores > free:
            return None
        return Allocation(device_type, (), cores, "" if config["trainer"]["accelerator"] == "cpu" else None)

    def _find_gpus(self, devices: int | str | list[int]) -> Allocation | None:
        """Find the least loaded GPUs. Those named by number in the config are looked up among all by the job itself."""
        load = Counter(dict.fromkeys(range(len(self.machine.gpus)), 0))
        load.update(gpu for allocation in self._allocations for gpu in allocation.gpus)
        if isinstance(devices, list):
            gpus = devices
        elif devices in ALL_DEVICES:
            gpus = list(load)
        else:
            gpus = sorted(sorted(load, key=lambda gpu: (load[gpu], gpu))[: int(devices)])
        if any(load[gpu] >= self._jobs_per_device for gpu in gpus):
            return None
        visible = None if isinstance(devices, list) else ",".join(self.machine.gpus[gpu] for gpu in gpus)
        return Allocation("gpu", tuple(gpus), 0, visible)

    def _device_type(self, config: Config) -> DeviceType:
        accelerator = config["trainer"]["accelerator"]
        if accelerator in ("gpu", "cuda"):
            return "gpu"
        if accelerator == "auto":
            return "gpu" if self.machine.gpus else "cpu"
        return "cpu" if accelerator == "cpu" else "exclusive"

    def _num_ranks(self, config: Config) -> int:
        devices = config["trainer"]["devices"]
        if isinstance(devices, list):
            return len(devices)
        if devices in ALL_DEVICES:
            return max(1, len(self.machine.gpus)) if self._device_type(config) == "gpu" else 1
        return int(devices)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
