"""Worker process, the only place where training starts: `python -m litlab.training.worker DIR`.

A worker gets a run directory and leaves a result in it. It trains itself, or starts a process per device and waits for
them. Each of these is a worker with RANK, LOCAL_RANK and WORLD_SIZE set, as torchrun sets them; a task of srun does so
itself. No worker composes a config. In a multirun, a fork server starts the workers, which fork their ranks.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, TextIO

from litlab.config.machine_facts import with_machine_facts
from litlab.config.trust import open_config, trusted_config
from litlab.errors import UserError
from litlab.process.allocator import keep_freed_memory
from litlab.process.child_process import Fork, count_gpus, exit_process, is_fork
from litlab.process.controller import AWAIT_RUN, await_run, thread_variables
from litlab.process.failure import FIRST_LOSS, describe_error, log_traceback, record_failure, resume_command
from litlab.process.imports import ImportThread
from litlab.process.ranks import (
    global_rank,
    is_first_task,
    is_rank,
    num_devices,
    num_local_ranks,
    num_nodes,
    owns_run,
    run_ranks,
    start_rank,
    take_ranks_of_srun,
)
from litlab.process.signals import STOP_SIGNALS, Stopped, StopRequest, exit_code
from litlab.runs.directory import RunDirectory
from litlab.runs.heartbeat import HeartbeatThread
from litlab.runs.lock import directory_lock
from litlab.runs.processor import num_cores
from litlab.runs.redact import RedactingFormatter
from litlab.runs.result import is_completed, read_result
from litlab.runs.state import RunStatus
from litlab.runs.terminal import FaultTolerantStream
from litlab.tensorboard_session import remove_session_end

STARTED = time.perf_counter()
Config = dict[str, Any]


def main() -> int:
    """Train the run in the directory that the command line names, or that comes later; return the exit code."""
    if sys.argv[1] != AWAIT_RUN:
        return work(sys.argv[1], STARTED)
    _imports()
    directory = await_run(int(sys.argv[2]))
    return work(directory, time.perf_counter())


@cache
def _imports() -> ImportThread:
    """Start to import torch, Lightning and what trains a run."""
    thread = ImportThread(["litlab.training.process_group", "litlab.training.run"])
    thread.start()
    return thread


def work(directory: str, started: float) -> int:
    """Train the run in a directory, from a process that started at this `time.perf_counter`; return the exit code."""
    sys.stdout, sys.stderr = FaultTolerantStream(sys.stdout), FaultTolerantStream(sys.stderr)
    stop = StopRequest()
    keep_freed_memory()
    try:
        stop.install()
        take_ranks_of_srun()
        run = RunDirectory.existing(directory)
        config, trust = open_config(run)
        trust.make_importable()
        decided = with_machine_facts(run, config)
        threads = decided["threads"] or max(1, num_cores() // num_local_ranks())
        os.environ |= thread_variables(threads)
        if not owns_run():
            if is_completed(run):
                return 0
            return _record_failures(run, config, stop, lambda: _train(run, config, decided, stop, started))
        with directory_lock(run.path) as lock:
            if is_completed(run):
                print(f"litlab: {run.path} is complete", file=sys.stderr)
                return 0
            run.result.unlink(missing_ok=True)
            remove_session_end(run)
            function = partial(_train_or_start_ranks, run, config, decided, stop, started, lock)
            return _report_failure(run, config, _record_failures(run, config, stop, function))
    except UserError as error:
        if is_rank() or is_first_task():
            print(f"litlab: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"litlab: {error.filename or directory}: {error.strerror}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        return stopped.exit_code


def _train_or_start_ranks(
    run: RunDirectory, config: Config, decided: Config, stop: StopRequest, started: float, lock: TextIO
) -> int:
    """Train in this process, or in several on this machine; torchrun or srun start those of several machines.

    Args:
        run: Run directory.
        config: Frozen config.
        decided: The same with what an earlier start has decided where it is open.
        stop: Request to stop.
        started: Time at which the process started, by `time.perf_counter`.
        lock: Lock of the run directory.
    """
    nodes = config["trainer"]["num_nodes"]
    if nodes > 1 and not is_rank():
        error = (
            f"start `-m litlab.training.worker {run.path}` with torchrun or srun on every machine; "
            f"`litlab resume {run.path}` prints the commands"
        )
        # Not refused: the directory stays.
        record_failure(run, config, RunStatus.FAILED, f"trainer.num_nodes={nodes}: {error}")
        return 1
    _check_gpus(run, config["trainer"], decided["trainer"])
    world_size = 1 if is_rank() else _count_devices(decided["trainer"])
    if world_size == 1:
        return _train(run, config, decided, stop, started)

    def start(environment: dict[str, str], passed: Sequence[int]) -> "Fork | subprocess.Popen[bytes]":
        if is_fork():
            return Fork(partial(_work_as_rank, run, environment))
        # A rank inherits the lock. If this process is killed, the lock is free when the last rank has ended.
        return start_rank(run.path, environment, [*passed, lock.fileno()])

    return run_ranks(world_size, stop, start)


def _work_as_rank(run: RunDirectory, environment: dict[str, str]) -> int:
    os.environ |= environment
    return work(str(run.path), time.perf_counter())


def _check_ranks(run: RunDirectory, trainer: Config, decided: Config) -> None:
    """Refuse a number of ranks that the config does not ask for, or that an earlier start has decided otherwise.

    Raises:
        UserError: If torchrun or srun started more or fewer ranks, on this machine or in all.
    """
    devices, nodes = num_local_ranks(), num_nodes()
    if (num_devices(decided) or devices, decided["num_nodes"]) != (devices, nodes):
        source = "the config says" if decided["devices"] == trainer["devices"] else "the run began with"
        raise UserError(
            f"trainer.devices={decided['devices']} trainer.num_nodes={decided['num_nodes']}, but {devices} ranks were "
            f"started on each of {nodes} machines: start as many as {source}, or change it by "
            f"`litlab resume {run.path} trainer.devices={devices} trainer.num_nodes={nodes}`"
        )


def _check_gpus(run: RunDirectory, trainer: Config, decided: Config) -> None:
    """Refuse to continue a run without the GPUs that its first start chose.

    Raises:
        UserError: If this machine has fewer.
    """
    was_open = decided != trainer
    if not was_open or decided["accelerator"] not in ("cuda", "gpu"):
        return
    needed, available = num_devices(decided) or 1, _count_gpus()
    if needed > available:
        override = f"trainer.devices={available}" if available else "trainer.accelerator=cpu trainer.devices=1"
        raise UserError(
            f"the run began on {_describe_gpus(needed)}, but this machine has {_describe_gpus(available)}: continue it "
            f"where there are as many, or change it by `litlab resume {run.path} {override}`"
        )


def _describe_gpus(number: int) -> str:
    return f"{number or 'no'} GPU{'s' * (number > 1)}"


def _count_devices(trainer: Config) -> int:
    """Count the devices to use on this machine."""
    if (number := num_devices(trainer)) is not None:
        return number
    if trainer["accelerator"] == "cpu":
        return 1
    return max(1, _count_gpus())


def _count_gpus() -> int:
    """Count the GPUs that CUDA can use here."""
    if is_fork():
        return count_gpus()
    import torch

    return torch.cuda.device_count()


def _train(run: RunDirectory, config: Config, decided: Config, stop: StopRequest, started: float) -> int:
    _imports().finish()
    from litlab.training.process_group import store_on_loopback  # these import torch
    from litlab.training.run import train

    _configure_logging(run.log)
    if is_rank():
        _check_ranks(run, config["trainer"], decided["trainer"])
    if is_fork():
        _configure_imported_libraries()
    heartbeat = HeartbeatThread(run) if global_rank() == 0 else None
    with store_on_loopback(strategy=config["trainer"].get("strategy", "auto")), heartbeat or nullcontext():
        frozen = trusted_config(run, config)
        status = train(run, frozen, stop, started=started, silent=_prints_to(run.log), heartbeat=heartbeat)
    return 1 if status is RunStatus.DIVERGED and global_rank() == 0 else 0  # other ranks would end rank zero


def _configure_logging(file: Path) -> None:
    """Send messages and warnings of libraries to run.log, since the console is for what its reader can act on."""
    logging.raiseExceptions = False  # a log that can't be written is no reason to print tracebacks
    handler = logging.StreamHandler(FaultTolerantStream(file.open("a", encoding="utf-8")))
    handler.setFormatter(RedactingFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    threading.excepthook = _log_thread_failure
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _log_thread_failure(failure: threading.ExceptHookArgs) -> None:
    """Log the error that ended a thread; TensorBoard's writer raises its error again where the next value is logged."""
    error = failure.exc_value or failure.exc_type()
    logging.getLogger("litlab").error("a thread ended", exc_info=error)


def _configure_imported_libraries() -> None:
    """Update what libraries read from the environment when the fork server imported them."""
    import torch
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rank_zero_only.rank = global_rank()  # type: ignore[attr-defined]  # its only state


def _prints_to(log: Path) -> bool:
    """Check whether standard output is this file, so that the console need not print what it logs."""
    try:
        return os.path.samestat(os.fstat(1), log.stat())
    except OSError:
        return False


def _record_failures(run: RunDirectory, config: Config, stop: StopRequest, function: Callable[[], int]) -> int:
    """Call a function that returns an exit code; record what it raises in run.log and result.json."""
    try:
        return function()
    except Stopped as stopped:
        record_failure(run, config, RunStatus.INTERRUPTED, f"stopped by {stopped}")
        return stopped.exit_code
    except UserError as error:
        record_failure(run, config, RunStatus.FAILED if run.metrics.exists() else RunStatus.REFUSED, str(error))
    except Exception as error:
        # A library swallowed `Stopped`, or the signal reached all processes, and ended those of a loader.
        if stop.received and (stop.was_raised or "DataLoader worker" in str(error)):
            record_failure(run, config, RunStatus.INTERRUPTED, f"stopped by {Stopped(stop.received)}")
            return exit_code(stop.received)
        log_traceback(run)
        record_failure(run, config, RunStatus.FAILED, describe_error(error, run))
    return 1


def _report_failure(run: RunDirectory, config: Config, code: int) -> int:
    """Print why the run did not complete, if it did not; return the exit code."""
    if code == 128 + signal.SIGKILL and not is_completed(run):  # the other ranks only know that they lost it
        run.result.unlink(missing_ok=True)
        record_failure(run, config, RunStatus.FAILED, "a rank was ended by SIGKILL (out of memory?)")
    if code and not run.result.exists():
        if code in map(exit_code, STOP_SIGNALS):  # before any rank could react
            record_failure(run, config, RunStatus.INTERRUPTED, f"stopped by {Stopped(code - 128)}")
        else:
            record_failure(run, config, RunStatus.FAILED, f"a rank ended with exit code {code}")
    if not run.result.exists():  # it could not be written, and `record_failure` has reported that
        return code
    result = read_result(run)
    match result["status"]:
        case RunStatus.INTERRUPTED:
            print(f"litlab: {result['error']}; to continue: {resume_command(run)}", file=sys.stderr)
        case RunStatus.DIVERGED:
            advice = "a lower learning rate, a longer warmup or trainer.gradient_clip_val helps most often"
            if result["error"].endswith(FIRST_LOSS):  # which no learning rate has changed
                advice = "check the loss, the network and the data"
            print(f"litlab: the run diverged: {result['error']}\nlitlab: {advice}", file=sys.stderr)
        case RunStatus.REFUSED:
            print(f"litlab: {result['error']}", file=sys.stderr)
        case RunStatus.FAILED:
            print(f"litlab: {result['error']}\nlitlab: the run failed; its log is {run.log}", file=sys.stderr)
    return code


if __name__ == "__main__":
    exit_process(main())
