"""Tests of the allocation of devices, by numbers alone."""

from typing import Any

import pytest

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
