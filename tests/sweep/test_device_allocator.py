"""Tests of the allocation of devices, by numbers alone, and of two allocators in two processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from litlab.process.device_leases import DeviceLeases
from litlab.sweep.backends.device_allocator import Allocation, DeviceAllocator, Machine

FOUR = Machine(gpus=("0", "1", "2", "3"), cores=8)
NONE = Machine(gpus=(), cores=8)


def config(
    devices: Any = 1, accelerator: str = "auto", threads: int | None = None, num_nodes: int = 1
) -> dict[str, Any]:
    return {"threads": threads, "trainer": {"devices": devices, "accelerator": accelerator, "num_nodes": num_nodes}}


def allocator(machine: Machine, jobs: int | None = None, jobs_per_device: int = 1) -> DeviceAllocator:
    return DeviceAllocator(machine, jobs=jobs, jobs_per_device=jobs_per_device)


def allocate_all(devices: DeviceAllocator, wanted: dict[str, Any]) -> list[Allocation]:
    """Allocate as many jobs as fit."""
    allocations = []
    while devices.fits(wanted):
        allocation = devices.allocate(wanted)
        assert allocation is not None
        allocations.append(allocation)
    assert devices.allocate(wanted) is None
    return allocations


def visible(devices: DeviceAllocator, wanted: dict[str, Any]) -> list[str | None]:
    """Allocate as many jobs as fit, and return the CUDA_VISIBLE_DEVICES of each."""
    return [allocation.visible_devices for allocation in allocate_all(devices, wanted)]


def test_each_gpu_is_allocated_once_until_it_is_released() -> None:
    devices = allocator(FOUR)
    allocations = allocate_all(devices, config())
    assert [allocation.visible_devices for allocation in allocations] == ["0", "1", "2", "3"]
    devices.release(allocations[2])
    assert visible(devices, config()) == ["2"]
    assert visible(allocator(FOUR, jobs_per_device=2), config()) == ["0", "1", "2", "3"] * 2


@pytest.mark.parametrize(
    ("num_devices", "before", "after"),
    [(2, ["1,2"], ["0,3"]), ("auto", [], ["0,1,2,3"]), (-1, [], ["0,1,2,3"])],
)
def test_a_job_of_several_gpus_waits_for_distinct_ones(num_devices: Any, before: list[str], after: list[str]) -> None:
    devices = allocator(FOUR)
    first = devices.allocate(config())
    assert first is not None
    assert visible(devices, config(num_devices)) == before
    devices.release(first)
    assert visible(devices, config(num_devices)) == after


def test_gpus_named_by_number_leave_the_rest_to_others() -> None:
    devices = allocator(FOUR)
    (named,) = allocate_all(devices, config(devices=[0, 2]))
    assert (named.gpus, named.visible_devices) == ((0, 2), None)  # the job finds them by number, among all
    assert visible(devices, config()) == ["1", "3"]


def test_gpus_have_their_names_in_the_environment() -> None:
    assert visible(allocator(Machine(gpus=("5", "MIG-1f"), cores=8)), config(devices=2)) == ["5,MIG-1f"]


@pytest.mark.parametrize(
    ("machine", "jobs", "wanted", "num_jobs"),
    [
        (NONE, None, config(threads=3), 2),
        (NONE, None, config(devices=2, threads=2), 2),
        (NONE, None, config(threads=100), 1),  # more than there are: alone, not never
        (NONE, 3, config(threads=100), 3),  # the user said so
        (FOUR, 3, config(), 3),
        (FOUR, 9, config(), 4),
        (NONE, None, config(accelerator="mps"), 1),
    ],
)
def test_number_of_jobs_at_once(machine: Machine, jobs: int | None, wanted: dict[str, Any], num_jobs: int) -> None:
    assert len(allocate_all(allocator(machine, jobs), wanted)) == num_jobs


def test_a_cpu_job_takes_no_gpu_and_sees_none() -> None:
    devices = allocator(FOUR)
    assert visible(devices, config(accelerator="cpu", threads=4)) == ["", ""]
    assert len(allocate_all(devices, config())) == 4
    assert visible(allocator(NONE), config(threads=4)) == [None, None]


@pytest.mark.parametrize(
    ("machine", "jobs", "wanted", "num_jobs", "threads"),
    [
        (NONE, None, config(), 100, 1),
        (NONE, None, config(), 3, 2),
        (NONE, None, config(), 1, 8),
        (NONE, None, config(devices=2), 2, 2),
        (NONE, 2, config(), 100, 4),
        (NONE, 100, config(), 100, 1),
        (FOUR, None, config(), 100, 2),
        (FOUR, None, config(devices=2), 100, 2),
        (FOUR, None, config(devices="auto"), 100, 2),
        (FOUR, None, config(devices=[1]), 1, 8),
        (FOUR, None, config(accelerator="cpu"), 2, 4),
        (FOUR, None, config(threads=7), 2, 7),
    ],
)
def test_cores_are_divided_among_jobs(
    machine: Machine, jobs: int | None, wanted: dict[str, Any], num_jobs: int, threads: int
) -> None:
    assert allocator(machine, jobs).threads(wanted, num_jobs) == threads


def test_each_problem_is_listed_once() -> None:
    two = allocator(Machine(gpus=("0", "1"), cores=4))
    assert two.problems([config(devices=3)] * 5 + [config(devices=[0, 2]), config(num_nodes=2)]) == [
        "trainer.devices=3: this machine has 2 GPUs",
        "trainer.devices=[0, 2]: this machine has 2 GPUs, numbered from 0",
        "trainer.num_nodes=2: the pool is one machine; expected trainer.num_nodes=1",
    ]
    assert allocator(NONE).problems([config(accelerator="gpu"), config(devices=9, accelerator="cpu")]) == [
        "trainer.accelerator=gpu: this machine has no GPU that CUDA can use",
        "trainer.devices=9: this machine has 8 CPU cores",
    ]
    assert two.problems([config(2), config("auto"), config([1]), config(4, "cpu"), config(2, "mps")]) == []


_OTHER_COMMAND = """
import sys, time
from pathlib import Path
from litlab.process.device_leases import DeviceLeases
from litlab.sweep.backends.device_allocator import DeviceAllocator, Machine

leases = DeviceLeases(Path(sys.argv[1]))
machine = Machine(gpus=("0", "1", "2", "3"), cores=8)
devices = DeviceAllocator(machine, jobs=None, jobs_per_device=2, leases=leases)
threads, accelerator, num_devices, num_jobs = sys.argv[2:]
trainer = {"devices": eval(num_devices), "accelerator": accelerator, "num_nodes": 1}
for _ in range(int(num_jobs)):
    assert devices.allocate({"threads": int(threads), "trainer": trainer})
print("allocated", flush=True)
time.sleep(100)
"""


@contextmanager
def other_command(folder: Path, config: dict[str, Any], num_jobs: int = 1) -> Iterator["subprocess.Popen[str]"]:
    """Allocate devices for jobs in another process; kill it at the end of the context."""
    trainer = config["trainer"]
    arguments = [config["threads"] or 1, trainer["accelerator"], repr(trainer["devices"]), num_jobs]
    command = [sys.executable, "-c", _OTHER_COMMAND, str(folder), *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "allocated\n"
            yield process
        finally:
            process.kill()


def leased(folder: Path, machine: Machine = FOUR, jobs: int | None = None, jobs_per_device: int = 2) -> DeviceAllocator:
    return DeviceAllocator(machine, jobs=jobs, jobs_per_device=jobs_per_device, leases=DeviceLeases(folder))


def test_gpus_of_another_command_are_waited_for(tmp_path: Path) -> None:
    """The other command would share each of its two GPUs between two jobs of its own, but not with other commands."""
    devices = leased(tmp_path, jobs_per_device=1)
    host = os.uname().nodename
    with other_command(tmp_path, config(accelerator="gpu"), num_jobs=2) as process:
        owner = f"process {process.pid} on {host}"
        assert devices.allocate(config([0])) is None
        assert devices.waits_for == f"GPU 0 is in use by {owner}"
        assert devices.allocate(config("auto")) is None
        assert devices.waits_for == f"GPUs 0, 1 are in use by {owner}"
        first = devices.allocate(config(2))
        assert first is not None
        assert (first.visible_devices, devices.waits_for) == ("2,3", "")
        assert devices.allocate(config()) is None
        assert devices.waits_for == f"GPUs 0, 1 are in use by {owner}", "its own job has the others"
        devices.release(first)
        process.kill()
        process.wait()
        everything = devices.allocate(config("auto"))
        assert everything is not None
        assert everything.visible_devices == "0,1,2,3"


def test_cores_of_another_command_are_waited_for_except_by_the_first_job(tmp_path: Path) -> None:
    devices = leased(tmp_path, NONE)
    job = config(accelerator="cpu", threads=2)
    with other_command(tmp_path, config(accelerator="cpu", threads=7)) as process:
        first = devices.allocate(job)
        assert first is not None, "one job of a command may always start"
        assert first.leases == ("core-7",)
        assert devices.fits(job)
        assert devices.allocate(job) is None
        assert devices.waits_for == f"7 of 8 CPU cores are in use by process {process.pid} on {os.uname().nodename}"
        many = leased(tmp_path, NONE, jobs=3)
        assert len(allocate_all(many, job)) == 3, "the user said so"
        process.kill()
        process.wait()
        second = devices.allocate(job)
        assert second is not None
        assert second.leases == ("core-0", "core-1")


def test_a_failed_allocation_leaves_no_lease(tmp_path: Path) -> None:
    ours, others = (leased(tmp_path, jobs_per_device=1) for _ in range(2))
    named = others.allocate(config([3]))
    assert named is not None
    assert ours.allocate(config("auto")) is None
    assert len(allocate_all(others, config())) == 3


def test_commands_on_other_cores_do_not_wait(tmp_path: Path) -> None:
    """As under taskset."""
    job = config(accelerator="cpu", threads=2)
    for numbers in ((0, 1), (2, 3)):
        allocate_all(leased(tmp_path, Machine((), 2, numbers)), job)
    devices = leased(tmp_path, Machine((), 4, (4, 5, 2, 3)))
    assert devices.allocate(job) is not None
    assert devices.allocate(job) is None
    assert devices.waits_for.startswith("2 of 4 CPU cores are in use by ")
