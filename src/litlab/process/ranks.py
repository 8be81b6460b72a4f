"""The ranks of a run: started together, stopped together. No torch."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from litlab.errors import RunFailed, UserError
from litlab.process.child_process import Fork
from litlab.process.signals import PARENT_VARIABLE, StopRequest, blocked_signals

STORE_SOCKET = "LITLAB_STORE_SOCKET"  # environment variable of rank 0: descriptor of the socket for the ranks' store
_SRUN_VARIABLES = {"RANK": "PROCID", "LOCAL_RANK": "LOCALID", "NODE_RANK": "NODEID", "WORLD_SIZE": "STEP_NUM_TASKS"}
GRACE = 4.0  # seconds for the other ranks to end once one has failed
POLL = 0.02  # seconds


def is_rank() -> bool:
    """Return whether this process was started as one rank of several, by litlab, torchrun or srun."""
    return all(name in os.environ for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))


def is_srun_task() -> bool:
    """Return whether srun started this process as one task of several."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def is_first_task() -> bool:
    """Return whether this process is the first that torchrun or srun started, or neither started it."""
    rank = os.environ.get("RANK") or (os.environ.get("SLURM_PROCID") if is_srun_task() else None)
    return rank in (None, "0")


def refuse_tasks() -> None:
    """Refuse a command that starts all its processes itself, if torchrun or srun starts it several times.

    Raises:
        UserError: In the first task.
        RunFailed: In the others, so that the reason is printed once.
    """
    if is_rank() or "TORCHELASTIC_RUN_ID" in os.environ:
        launcher = "torchrun"
    elif is_srun_task():
        launcher = "srun"
    else:
        return
    if not is_first_task():
        raise RunFailed(UserError.exit_code)
    raise UserError(
        f"this command starts all its processes itself: run it once, without {launcher}; with trainer.num_nodes and "
        f"--freeze-only, litlab train makes a run directory and prints what to start with {launcher}"
    )


def take_ranks_of_srun() -> None:
    """Set the variables that torchrun would set, in a task of srun; in any other process do nothing.

    `MASTER_ADDR` and `MASTER_PORT` of the environment stay.

    Raises:
        UserError: If the nodes have unequal numbers of tasks, or SLURM does not tell the address of the first one.
    """
    if not is_srun_task() or "RANK" in os.environ:
        return
    slurm = {name: os.environ[f"SLURM_{name}"] for name in (*_SRUN_VARIABLES.values(), "JOB_ID", "STEP_ID")}
    tasks = os.environ["SLURM_STEP_TASKS_PER_NODE"]  # such as 2(x3), or 2,1
    match = re.fullmatch(r"(\d+)(\(x\d+\))?", tasks)
    if match is None:
        raise UserError(f"srun started {tasks} tasks on the nodes; all nodes need equally many: --ntasks-per-node")
    ranks = {name: slurm[variable] for name, variable in _SRUN_VARIABLES.items()}
    port = 20000 + int(slurm["JOB_ID"]) * 16 % 12000 + int(slurm["STEP_ID"]) % 16  # the same in all tasks
    if "MASTER_ADDR" not in os.environ:
        os.environ["MASTER_ADDR"] = _address_of_first(os.environ["SLURM_STEP_NODELIST"])
    os.environ.setdefault("MASTER_PORT", str(port))
    os.environ |= ranks | {"GROUP_RANK": ranks["NODE_RANK"], "LOCAL_WORLD_SIZE": match[1]}


def _address_of_first(nodes: str) -> str:
    """Return the address of the first of these nodes, such as `n[1-4,7]`."""
    first = _scontrol("show", "hostnames", nodes).split()[0]
    match = re.search(r"\bNodeAddr=(\S+)", _scontrol("-o", "show", "node", first))
    return first if match is None else match[1]


def _scontrol(*arguments: str) -> str:
    try:
        return subprocess.run(["scontrol", *arguments], capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = getattr(error, "stderr", None) or error
        raise UserError(
            f"scontrol {' '.join(arguments)}: {str(reason).strip()}; set MASTER_ADDR to the address of the first node"
        ) from error


def owns_run() -> bool:
    """Return whether this process holds the run's lock and reports its end.

    The parent of litlab's own ranks does; under torchrun and srun, rank 0 does.
    """
    return not is_rank() or (PARENT_VARIABLE not in os.environ and global_rank() == 0)


def global_rank() -> int:
    """Return the rank of this process among all of the run."""
    return int(os.environ["RANK"]) if is_rank() else 0


def num_local_ranks() -> int:
    """Return the number of ranks on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_rank() else 1


def num_nodes() -> int:
    """Return the number of machines of the run; all have equally many ranks."""
    return int(os.environ["WORLD_SIZE"]) // num_local_ranks() if is_rank() else 1


def num_devices(trainer: dict[str, Any]) -> int | None:
    """Return the number of devices on each machine that the Trainer's arguments name.

    Args:
        trainer: Section `trainer` of the frozen config.

    Returns:
        The number; None for `auto` and -1, which mean all.
    """
    devices = trainer["devices"]
    if devices in ("auto", -1):
        return None
    return len(devices) if isinstance(devices, list) else int(devices)


RankProcess = subprocess.Popen[bytes] | Fork
StartRank = Callable[[dict[str, str], Sequence[int]], RankProcess]  # takes its variables and descriptors to inherit


def run_ranks(world_size: int, stop: StopRequest, start: StartRank) -> int:
    """Start all ranks and wait for them; the first that fails stops the others.

    Rank 0 gets the socket of `MASTER_PORT`, where it has to serve the store that the ranks meet at.

    Args:
        world_size: Number of ranks.
        stop: Stop request of this process, which is passed on to the ranks once.
        start: Starts one rank, given its own environment variables and the descriptors that it inherits.

    Returns:
        The exit code: 0 if all ended with 0, else that of the first that did not.
    """
    common = {PARENT_VARIABLE: str(os.getpid()), "NODE_RANK": "0"}
    common |= {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    ranks: list[RankProcess] = []
    try:
        with blocked_signals():
            with reserve_port() as reserved:  # closed before a second rank could inherit it by forking
                common |= store_environment(reserved)
                store = {STORE_SOCKET: str(reserved.fileno())}
                ranks.append(start(common | _rank_environment(0) | store, [reserved.fileno()]))
            ranks += [start(common | _rank_environment(rank), []) for rank in range(1, world_size)]
        return _wait(ranks, stop)
    finally:
        for process in ranks:
            if process.poll() is None:
                process.kill()
                process.wait()


def start_rank(directory: Path, environment: dict[str, str], pass_fds: Sequence[int]) -> "subprocess.Popen[bytes]":
    """Start a rank on a run directory as a new interpreter.

    Args:
        directory: The run directory.
        environment: Variables to add to those of this process.
        pass_fds: Descriptors to inherit.
    """
    command = [sys.executable, "-P", "-m", "litlab.training.worker", str(directory)]
    return subprocess.Popen(command, env=dict(os.environ) | environment, pass_fds=pass_fds)


def reserve_port() -> socket.socket:
    """Return a socket that keeps a free port of 127.0.0.1 from others. It does not listen yet."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def store_environment(reserved: socket.socket) -> dict[str, str]:
    """Return variables that make `torch.distributed` meet at this socket and listen on loopback alone.

    A choice of interfaces that is already in the environment stays.
    """
    variables = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(reserved.getsockname()[1])}
    loopback = next((name for _, name in socket.if_nameindex() if name in ("lo", "lo0")), None)  # Linux, macOS
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if loopback and name not in os.environ:
            variables[name] = loopback
    return variables


def _rank_environment(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


def _wait(ranks: Sequence[RankProcess], stop: StopRequest) -> int:
    """Wait for all ranks: pass a stop signal on once, and stop the others when one has failed."""
    is_stopping = False
    deadline = None
    code = 0
    with stop.deferred():
        while any(process.poll() is None for process in ranks):
            if not is_stopping and (signum := stop.pending()):
                is_stopping = True
                _send_signal(ranks, signum)
            if deadline is None and (failed := _first_failure(ranks)):
                code, deadline = failed, time.monotonic() + GRACE
                if not is_stopping:  # for ranks that are stopping, a second signal would mean to stop at once
                    _send_signal(ranks, signal.SIGTERM)
            if deadline is not None and time.monotonic() > deadline:
                break
            time.sleep(POLL)
    code = code or _first_failure(ranks)
    return 128 - code if code < 0 else code


def _first_failure(ranks: Sequence[RankProcess]) -> int:
    return next((code for process in ranks if (code := process.poll())), 0)


def _send_signal(ranks: Sequence[RankProcess], signum: int) -> None:
    for process in ranks:
        process.send_signal(signum)  # does nothing for one that has ended
