"""Ranks of a run by the variables of srun, as SLURM 22.05 set them on two nodes."""

import os
from pathlib import Path

import pytest

from litlab.errors import UserError
from litlab.process.ranks import is_first_task, num_local_ranks, num_nodes, owns_run, take_ranks_of_srun
from litlab.process.signals import PARENT_VARIABLE

# What scontrol answered for these two nodes, but for the address; the line of the node is shortened.
SCONTROL = """#!/bin/sh
case "$*" in
    "show hostnames n[1-2]") printf 'n1\\nn2\\n' ;;
    "-o show node n1") echo 'NodeName=n1 Arch=x86_64 CPUTot=2 NodeAddr=10.0.0.7 NodeHostName=vm Port=17818' ;;
    *) echo "slurm_load_node error: $*" >&2; exit 1 ;;
esac
"""
STEP = {
    "SLURM_JOB_ID": "2", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
}  # fmt: skip
RANK = {
    "RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "1", "GROUP_RANK": "1",
    "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "20032",
}  # fmt: skip


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Make this process the last of four tasks on two nodes; its rank variables are removed afterwards."""
    (tmp_path / "scontrol").write_text(SCONTROL)
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in (*RANK, PARENT_VARIABLE):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in STEP.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def ranks() -> dict[str, str]:
    return {name: os.environ[name] for name in RANK if name in os.environ}


def test_a_task_of_srun_is_a_rank(task: pytest.MonkeyPatch) -> None:
    assert not is_first_task()
    take_ranks_of_srun()
    assert ranks() == RANK
    assert (num_local_ranks(), num_nodes(), owns_run(), is_first_task()) == (2, 2, False, False)
    take_ranks_of_srun()
    assert ranks() == RANK


def test_an_address_of_the_environment_wins(task: pytest.MonkeyPatch) -> None:
    task.setenv("MASTER_ADDR", "10.9.9.9")
    task.setenv("MASTER_PORT", "5000")
    task.setenv("SLURM_STEP_NODELIST", "nobody")
    take_ranks_of_srun()
    assert ranks() == RANK | {"MASTER_ADDR": "10.9.9.9", "MASTER_PORT": "5000"}


@pytest.mark.parametrize("change", [{"SLURM_STEP_NUM_TASKS": "1"}, {"SLURM_STEP_NUM_TASKS": None}, {"RANK": "0"}])
def test_any_other_process_is_left_alone(change: dict[str, str | None], task: pytest.MonkeyPatch) -> None:
    """A job of one task, a batch script, and a rank that torchrun or litlab has started within a step."""
    for name, value in change.items():
        if value is None:
            task.delenv(name)
        else:
            task.setenv(name, value)
    before = ranks()
    take_ranks_of_srun()
    assert ranks() == before
    assert is_first_task()


def test_unequal_nodes_are_refused(task: pytest.MonkeyPatch) -> None:
    task.setenv("SLURM_STEP_TASKS_PER_NODE", "2,1")
    with pytest.raises(UserError, match=r"srun started 2,1 tasks on the nodes; all nodes need equally many: --ntasks"):
        take_ranks_of_srun()
    assert ranks() == {}


def test_a_cluster_that_does_not_answer(task: pytest.MonkeyPatch) -> None:
    task.setenv("SLURM_STEP_NODELIST", "m1")
    message = r"^scontrol show hostnames m1: slurm_load_node error: show hostnames m1; set MASTER_ADDR to the address"
    with pytest.raises(UserError, match=message):
        take_ranks_of_srun()
    task.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"^scontrol show hostnames m1: .*No such file.*; set MASTER_ADDR"):
        take_ranks_of_srun()
