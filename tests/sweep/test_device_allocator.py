"""Who gets which device of a machine, and when. No process: numbers."""

from typing import Any

import pytest

from litlab.sweep.backends.device_allocator import Lease, Leases, Machine, objections

FOUR = Machine(gpus=("0", "1", "2", "3"), cores=8)
NONE = Machine(gpus=(), cores=8)


def config(
    devices: Any = 1, accelerator: str = "auto", threads: int | None = None, num_nodes: int = 1
) -> dict[str, Any]:
    return {"threads": threads, "trainer": {"devices": devices, "accelerator": accelerator, "num_nodes": num_nodes}}


def leases(machine: Machine, jobs: int | None = None, jobs_per_device: int = 1) -> Leases:
    return Leases(machine, jobs=jobs, jobs_per_device=jobs_per_device)


def take_all(of: Leases, wanted: dict[str, Any]) -> list[Lease]:
    """As many as there is room for."""
    taken = []
    while (lease := of.find(wanted)) is not None:
        of.take(lease)
        taken.append(lease)
    return taken


def take_one(of: Leases) -> Lease:
    lease = of.find(config())
    assert lease is not None
    of.take(lease)
    return lease


def test_each_gpu_is_leased_once_and_again_when_it_is_free() -> None:
    of = leases(FOUR)
    taken = take_all(of, config())
    assert [lease.visible for lease in taken] == ["0", "1", "2", "3"]
    of.give_back(taken[2])
    assert [lease.visible for lease in take_all(of, config())] == ["2"]


def test_jobs_that_share_gpus_are_spread() -> None:
    taken = take_all(leases(FOUR, jobs_per_device=2), config())
    assert [lease.visible for lease in taken] == ["0", "1", "2", "3"] * 2


def test_a_job_of_several_gpus_gets_distinct_ones() -> None:
    of = leases(FOUR)
    first = take_one(of)
    assert [lease.visible for lease in take_all(of, config(devices=2))] == ["1,2"]
    of.give_back(first)
    assert [lease.visible for lease in take_all(of, config(devices=2))] == ["0,3"]


@pytest.mark.parametrize("devices", ["auto", -1])
def test_a_job_of_all_gpus_waits_for_all(devices: Any) -> None:
    of = leases(FOUR)
    first = take_one(of)
    assert of.find(config(devices)) is None
    of.give_back(first)
    assert [lease.visible for lease in take_all(of, config(devices))] == ["0,1,2,3"]


def test_gpus_that_the_config_names_are_those_and_the_rest_is_for_others() -> None:
    of = leases(FOUR)
    (named,) = take_all(of, config(devices=[0, 2]))
    assert (named.gpus, named.visible) == ((0, 2), None)  # it finds them by number, among all
    assert [lease.visible for lease in take_all(of, config())] == ["1", "3"]


def test_gpus_are_called_as_the_environment_calls_them() -> None:
    (lease, *_) = take_all(leases(Machine(gpus=("5", "MIG-1f"), cores=8)), config(devices=2))
    assert lease.visible == "5,MIG-1f"


def test_on_the_cpu_threads_are_what_is_leased() -> None:
    assert len(take_all(leases(NONE), config(threads=3))) == 2
    assert len(take_all(leases(NONE), config(devices=2, threads=2))) == 2
    assert len(take_all(leases(NONE), config(threads=100))) == 1  # more than there are: alone, not never
    assert len(take_all(leases(NONE, jobs=3), config(threads=100))) == 3  # it was asked for


def test_the_number_of_jobs_limits_gpus_too() -> None:
    assert len(take_all(leases(FOUR, jobs=3), config())) == 3
    assert len(take_all(leases(FOUR, jobs=9), config())) == 4


def test_a_cpu_job_sees_no_gpu_if_it_says_so_and_leases_none() -> None:
    of = leases(FOUR)
    assert {lease.visible for lease in take_all(of, config(accelerator="cpu", threads=4))} == {""}
    assert len(take_all(of, config())) == 4
    assert {lease.visible for lease in take_all(leases(NONE), config(threads=4))} == {None}


def test_other_devices_go_one_job_at_a_time() -> None:
    assert len(take_all(leases(NONE), config(accelerator="mps"))) == 1


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
def test_the_cores_are_shared_out(
    machine: Machine, jobs: int | None, wanted: dict[str, Any], num_jobs: int, threads: int
) -> None:
    assert leases(machine, jobs).threads(wanted, num_jobs) == threads


def test_what_can_never_run_is_said_once_each() -> None:
    two = leases(Machine(gpus=("0", "1"), cores=4))
    assert objections(two, [config(devices=3)] * 5 + [config(devices=[0, 2]), config(num_nodes=2)]) == [
        "trainer.devices=3: this machine has 2 GPUs",
        "trainer.devices=[0, 2]: this machine has 2 GPUs, numbered from 0",
        "trainer.num_nodes=2: the pool is one machine; expected trainer.num_nodes=1",
    ]
    assert objections(leases(NONE), [config(accelerator="gpu"), config(devices=9, accelerator="cpu")]) == [
        "trainer.accelerator=gpu: this machine has no GPU that CUDA can use",
        "trainer.devices=9: this machine has 8 CPU cores",
    ]
    assert objections(two, [config(2), config("auto"), config([1]), config(4, "cpu"), config(2, "mps")]) == []
