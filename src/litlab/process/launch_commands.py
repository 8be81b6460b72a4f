"""Commands of srun and torchrun that start the ranks of a run on several machines, for the user to enter."""

import shlex
import sys
from pathlib import Path
from typing import Any

from litlab.errors import UserError
from litlab.process.ranks import num_devices
from litlab.runs.directory import RunDirectory
from litlab.runs.terminal import display_path

_WORKER = "litlab.training.worker"
_GPU_ACCELERATORS = ("gpu", "cuda")


def launch_commands(run: RunDirectory, config: dict[str, Any]) -> list[str]:
    """Return lines with the commands that start a run on all of its machines, each after its name.

    Args:
        run: The run directory.
        config: Its frozen config.

    Raises:
        UserError: If the config leaves the number of devices open.
    """
    trainer = config["trainer"]
    num_nodes, accelerator = trainer["num_nodes"], trainer["accelerator"]
    if num_nodes == 1:
        return [f"start        {shlex.join(['litlab', 'resume', str(display_path(run.path))])}"]
    num_ranks = num_devices(trainer) or (1 if accelerator == "cpu" else None)
    if num_ranks is None:
        raise UserError(
            f"trainer.devices={trainer['devices']}: srun and torchrun need the number of ranks on each machine; set "
            "trainer.devices"
        )
    directory = str(run.path.absolute())
    srun = ["srun", f"--nodes={num_nodes}", f"--ntasks-per-node={num_ranks}"]
    if config["threads"] is not None:
        srun.append(f"--cpus-per-task={config['threads']}")
    if accelerator in _GPU_ACCELERATORS:
        srun.append(f"--gres=gpu:{num_ranks}")
    srun += ["--kill-on-bad-exit=1", sys.executable, "-P", "-m", _WORKER, directory]
    torchrun = [
        # After a restart, ranks that meet at the store of their agent would read the keys of the ranks before them.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1",
        str(Path(sys.executable).with_name("torchrun")),
        f"--nnodes={num_nodes}", f"--nproc-per-node={num_ranks}", "--max-restarts=3",
        "--rdzv-backend=c10d", f"--rdzv-id={run.path.name}", "--rdzv-endpoint=FIRST:29400",
        "-m", _WORKER, directory,
    ]  # fmt: skip
    return [
        f"srun         {shlex.join(srun)}",
        f"torchrun     {shlex.join(torchrun)}",
        f"             on each of the {num_nodes} machines; FIRST is the name of one of them, the same on all",
    ]
