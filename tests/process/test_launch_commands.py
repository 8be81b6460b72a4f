"""Commands that start a run on several machines."""

import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from litlab.errors import UserError
from litlab.process.launch_commands import launch_commands
from litlab.runs.directory import RunDirectory


def commands(tmp_path: Path, threads: int | None = 4, **trainer: Any) -> list[str]:
    """Return the lines for a run in a directory whose name needs quotes."""
    config = {"threads": threads, "trainer": {"accelerator": "cpu", "devices": 1, "num_nodes": 2} | trainer}
    return launch_commands(RunDirectory(tmp_path / "a run"), config)


def test_two_machines(tmp_path: Path) -> None:
    srun, torchrun, where = commands(tmp_path, devices=3)
    worker, directory = "litlab.training.worker", str(tmp_path / "a run")
    assert shlex.split(srun) == [
        "srun", "srun", "--nodes=2", "--ntasks-per-node=3", "--cpus-per-task=4", "--kill-on-bad-exit=1",
        sys.executable, "-P", "-m", worker, directory,
    ]  # fmt: skip
    name, variable, program, *arguments = shlex.split(torchrun)
    assert (name, variable) == ("torchrun", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
    assert Path(program).is_file()
    assert arguments == [
        "--nnodes=2", "--nproc-per-node=3", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=a run",
        "--rdzv-endpoint=FIRST:29400", "-m", worker, directory,
    ]  # fmt: skip
    assert where.strip().startswith("on each of the 2 machines; FIRST is")


def test_gpus_are_requested_from_slurm(tmp_path: Path) -> None:
    srun, torchrun, _ = commands(tmp_path, threads=None, accelerator="gpu", devices=[0, 1])
    assert "--ntasks-per-node=2 --gres=gpu:2 --kill-on-bad-exit=1" in srun
    assert "--nproc-per-node=2" in torchrun


def test_all_devices_of_a_machine(tmp_path: Path) -> None:
    assert "--ntasks-per-node=1" in commands(tmp_path, devices="auto")[0]
    with pytest.raises(UserError, match=r"^trainer.devices=auto: srun and torchrun need the number .*; set trainer"):
        commands(tmp_path, accelerator="gpu", devices="auto")


def test_one_machine_needs_neither(tmp_path: Path) -> None:
    (line,) = commands(tmp_path, num_nodes=1, devices=2)
    assert line.startswith("start        litlab resume ")
