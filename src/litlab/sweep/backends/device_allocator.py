"""Allocation of the devices of one machine to jobs: GPUs by number, CPU cores by count.

Devices that jobs of another command hold are waited for (`process.device_leases`), with two exceptions. A command
without a running job may always start one on the CPU, so that nobody waits for a long study to run a small one. And
the user's own number of jobs counts whatever the cores do.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from litlab.process.device_leases import DeviceLeases
from litlab.sweep.backends.base import Config

ALL_DEVICES = ("auto", -1)  # values of trainer.devices
DeviceType = Literal["gpu", "cpu", "exclusive"]


@dataclass(frozen=True)
class Machine:
    """Devices of a machine that processes here may use.

    Attributes:
        gpus: Names in CUDA_VISIBLE_DEVICES, in the order in which processes here see them.
        cores: Number of CPU cores.
        core_numbers: Their numbers in the kernel; empty for those from 0.
    """

    gpus: tuple[str, ...]
    cores: int
    core_numbers: tuple[int, ...] = ()


@dataclass(frozen=True)
class Allocation:
    """Devices of one job.

    Attributes:
        device_type: Type of the devices; `exclusive` for accelerators that can't be told apart: one such job at a time.
        gpus: Indices into `Machine.gpus`.
        cores: Number of cores that its threads keep busy; 0 unless it is a CPU job.
        visible_devices: Its CUDA_VISIBLE_DEVICES; None to inherit it.
        leases: Devices whose leases it holds.
    """

    device_type: DeviceType
    gpus: tuple[int, ...]
    cores: int
    visible_devices: str | None
    leases: tuple[str, ...]


@dataclass(frozen=True)
class _Request:
    """Devices that a job may have, as far as this command's own jobs leave them.

    Attributes:
        candidates: Names of the devices, best first.
        number: Number of them that it needs.
        cores: As in `Allocation`.
        waits: True if it waits for devices of other commands.
    """

    device_type: DeviceType
    candidates: tuple[str, ...]
    number: int
    cores: int
    waits: bool


class DeviceAllocator:
    """Devices of a machine and their current allocations.

    Args:
        machine: Devices to allocate.
        jobs: Maximum number of jobs at once; None for as many as there are devices for.
        jobs_per_device: Maximum number of jobs that share a GPU.
        leases: Leases of this command; None if no other command uses the machine.

    Attributes:
        waits_for: Devices of other commands that the last call of `allocate` failed for; empty if there were none.
    """

    def __init__(
        self, machine: Machine, *, jobs: int | None, jobs_per_device: int, leases: DeviceLeases | None = None
    ) -> None:
        self.machine = machine
        self.waits_for = ""
        self._jobs = jobs
        self._jobs_per_device = jobs_per_device
        self._leases = leases
        self._allocations: list[Allocation] = []

    def problems(self, configs: Sequence[Config]) -> list[str]:
        """Return the reasons why jobs with these configs can never run here, each once."""
        return list(dict.fromkeys(problem for config in configs for problem in self._problems(config)))

    def threads(self, config: Config, num_jobs: int) -> int:
        """Return the threads of a process of one of `num_jobs` such jobs: of its config, else a share of the cores."""
        share = self.machine.cores // (self._num_parallel(config, num_jobs) * self._num_ranks(config))
        return int(config["threads"] or max(1, share))

    def fits(self, config: Config) -> bool:
        """Return True if the jobs of this command leave enough devices for a job."""
        return self._request(config) is not None

    def allocate(self, config: Config) -> Allocation | None:
        """Allocate devices for a job; None if it has to wait for them."""
        self.waits_for = ""
        request = self._request(config)
        if request is None:
            return None
        taken, refused = list(request.candidates[: request.number]), list[str]()
        if self._leases is not None:
            taken, refused = self._leases.take(request.candidates, request.number)
            if len(taken) < request.number and request.waits:
                self._leases.release(taken)
                self.waits_for = self._describe_owners(request, refused)
                return None
        gpus: tuple[int, ...] = ()
        visible = "" if config["trainer"]["accelerator"] == "cpu" else None
        if request.device_type == "gpu":
            gpus = tuple(sorted(map(self._gpu_leases.index, taken)))
            if not isinstance(config["trainer"]["devices"], list):
                visible = ",".join(self.machine.gpus[gpu] for gpu in gpus)
        allocation = Allocation(request.device_type, gpus, request.cores, visible, tuple(taken))
        self._allocations.append(allocation)
        return allocation

    def release(self, allocation: Allocation) -> None:
        """Free the devices of a job."""
        self._allocations.remove(allocation)
        if self._leases is not None:
            self._leases.release(allocation.leases)

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

    def _request(self, config: Config) -> _Request | None:
        """Return the devices to choose from; None if jobs of this command have too many of them."""
        if self._jobs is not None and len(self._allocations) >= self._jobs:
            return None
        device_type = self._device_type(config)
        if device_type == "gpu":
            return self._request_gpus(config["trainer"]["devices"])
        if device_type == "exclusive":
            is_taken = any(allocation.device_type == device_type for allocation in self._allocations)
            return None if is_taken else _Request(device_type, (config["trainer"]["accelerator"],), 1, 0, waits=True)
        cores = min(self.machine.cores, int(config["threads"] or 1) * self._num_ranks(config))
        free = self.machine.cores - sum(allocation.cores for allocation in self._allocations)
        if self._jobs is None and cores > free:
            return None
        held = {lease for allocation in self._allocations for lease in allocation.leases}
        numbers = self.machine.core_numbers or range(self.machine.cores)
        candidates = tuple(lease for number in numbers if (lease := f"core-{number}") not in held)
        return _Request(device_type, candidates, cores, cores, waits=self._jobs is None and bool(self._allocations))

    def _request_gpus(self, devices: int | str | list[int]) -> _Request | None:
        """Request the least loaded GPUs. Those named by number in the config are found among all by the job itself."""
        load = Counter(dict.fromkeys(range(len(self.machine.gpus)), 0))
        load.update(gpu for allocation in self._allocations for gpu in allocation.gpus)
        if isinstance(devices, list):
            gpus, number = devices, len(devices)
        elif devices in ALL_DEVICES:
            gpus, number = list(load), len(load)
        else:
            gpus, number = sorted(load, key=lambda gpu: (load[gpu], gpu)), int(devices)
        free = [gpu for gpu in gpus if load[gpu] < self._jobs_per_device]
        if len(free) < number:
            return None
        return _Request("gpu", tuple(self._gpu_leases[gpu] for gpu in free), number, 0, waits=True)

    @property
    def _gpu_leases(self) -> tuple[str, ...]:
        return tuple(f"gpu-{name}" for name in self.machine.gpus)

    def _describe_owners(self, request: _Request, refused: Sequence[str]) -> str:
        """Say which devices are in use, and by whom."""
        assert self._leases is not None
        if request.device_type == "cpu":
            devices = f"{len(refused)} of {_count(self.machine.cores, 'CPU core')}"
        elif request.device_type == "gpu":
            devices = f"GPU{'s' * (len(refused) != 1)} {', '.join(lease.removeprefix('gpu-') for lease in refused)}"
        else:
            devices = refused[0]
        owners = list(dict.fromkeys(map(self._leases.owner, refused)))
        names = " and ".join(owners[:2]) + (f" and {len(owners) - 2} more" if len(owners) > 2 else "")
        return f"{devices} {'is' if len(refused) == 1 else 'are'} in use by {names}"

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
