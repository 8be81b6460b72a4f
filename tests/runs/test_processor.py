"""Name, features and number of cores of a processor, in a tree of files as the kernel shows them."""

import os
from pathlib import Path

import pytest

from litlab.runs.processor import multiplies_bfloat16, num_cores, processor_name

ALL = len(os.sched_getaffinity(0))


def write_tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"
SLICE = "0::/user.slice/job.scope\n"
DOCKER_V1 = "5:cpu,cpuacct:/docker/1a2b\n4:cpuset:/docker/1a2b\n0::/system.slice\n"


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        ("0::/\n", {f"{V2}/cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {f"{V2}/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", {f"{V2}/cpu.max": "max 100000\n"}, ALL),
        ("0::/\n", {f"{V2}/cpu.max": "6400000 100000\n"}, ALL),
        ("0::/\n", {}, ALL),
        (SLICE, {f"{V2}/user.slice/job.scope/cpu.max": "100000 100000\n"}, 1),
        (SLICE, {f"{V2}/user.slice/job.scope/cpu.max": "max 100000\n", f"{V2}/user.slice/cpu.max": "10000 10000\n"}, 1),
        (DOCKER_V1, {f"{V1}/cpu.cfs_quota_us": "100000\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, 1),
        (DOCKER_V1, {f"{V1}/cpu.cfs_quota_us": "-1\n", f"{V1}/cpu.cfs_period_us": "100000\n"}, ALL),
        (DOCKER_V1, {f"{V1}/docker/1a2b/cpu.cfs_quota_us": "5\n", f"{V1}/docker/1a2b/cpu.cfs_period_us": "10\n"}, 1),
    ],
)  # fmt: skip
@pytest.mark.skipif(ALL < 2, reason="a quota can't be told from the affinity")
def test_the_smallest_quota_of_the_groups_limits_the_cores(
    groups: str, files: dict[str, str], cores: int, tmp_path: Path
) -> None:
    write_tree(tmp_path, {"proc/self/cgroup": groups, **files})
    assert num_cores(tmp_path) == cores


def test_a_part_of_a_core_counts_as_one(tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/self/cgroup": "0::/\n", f"{V2}/cpu.max": f"{ALL * 100000 - 50000} 100000\n"})
    assert num_cores(tmp_path) == ALL


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert num_cores(tmp_path) == ALL


@pytest.mark.parametrize(
    ("cpuinfo", "has_bfloat16"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16 fma\n", True),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile\n", True),
        ("flags\t\t: fpu avx2 avx512f avx512vl avx512_vnni\n", False),
        ("flags\t\t: fpu avx2\nbugs\t\t: bf16\n", False),
        ("Features\t: fp asimd sve bf16 i8mm\n", True),
        ("Features\t: fp asimd svebf16\n", True),
        ("Features\t: fp asimd asimddp\n", False),
        (None, False),
    ],
)
def test_only_instructions_in_bfloat16_count(cpuinfo: str | None, has_bfloat16: bool, tmp_path: Path) -> None:
    if cpuinfo is not None:
        write_tree(tmp_path, {"proc/cpuinfo": f"processor\t: 0\nmodel name\t: A fast one\n{cpuinfo}\n"})
    assert multiplies_bfloat16(tmp_path) == has_bfloat16
    assert (processor_name(tmp_path) == "A fast one") == (cpuinfo is not None)
    assert processor_name(tmp_path)
