"""The number of ranks is litlab's own, also within a job of SLURM."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.runs import TINY, compose_config
from support.warm import run_warm

from litlab.config.config_file import to_yaml
from litlab.process.ranks import reserve_port
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

WORKER = "litlab.training.worker"
SHORT = (*TINY, "trainer.max_epochs=1")
# Of a batch job with one task, whose processes Lightning takes for tasks of it.
BATCH_JOB = {"NTASKS": "1", "PROCID": "0", "LOCALID": "0", "NODEID": "0", "JOB_ID": "1", "JOB_NAME": "sbatch"}
# Of a step with a task on each of two nodes.
TWO_NODES = {"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}


@pytest.mark.integrations
def test_two_ranks_within_a_batch_job_and_two_tasks_of_srun_train_as_two(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text("#!/bin/sh\n")
    srun.chmod(0o755)
    path = {"PATH": f"{srun.parent}:{os.environ['PATH']}"}
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    inside = outside | path | {f"SLURM_{name}": value for name, value in BATCH_JOB.items()}
    config = compose_config(*SHORT, "trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")
    weights = []
    for name, environment in {"outside": outside | path, "inside": inside}.items():
        run = RunDirectory.create(tmp_path / name, to_yaml(config), {})
        done = run_warm([WORKER, str(run.path)], tmp_path, timeout=200, environment=environment)
        assert done.returncode == 0, done.stderr
        assert run.read_json(run.provenance)["machine"]["ranks"] == 2
        assert "srun" not in run.log.read_text()
        weights.append(read_result(run)["weights"])
    assert weights[0] == weights[1]

    config = compose_config(*SHORT, "trainer=ddp", "trainer.accelerator=cpu", "trainer.num_nodes=2")
    run = RunDirectory.create(tmp_path / "srun", to_yaml(config), {})
    command = [sys.executable, "-P", "-m", WORKER, str(run.path)]  # new ones: Lightning reads variables when imported
    with reserve_port() as reserved:
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(reserved.getsockname()[1])}
    tasks = [
        subprocess.Popen(command, env=inside | meeting | TWO_NODES | {"SLURM_PROCID": rank, "SLURM_NODEID": rank})
        for rank in ("0", "1")
    ]
    assert [task.wait(200) for task in tasks] == [0, 0]
    assert run.read_json(run.provenance)["machine"]["ranks"] == 2
    assert read_result(run)["weights"] == weights[0]
