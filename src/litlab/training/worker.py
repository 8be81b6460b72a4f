"""One run directory in, one result out: `python -m litlab.training.worker DIR`. The only place where training starts.

The process that is started trains itself, or starts a process per device and waits for them; each of these is started
the same way, with RANK, LOCAL_RANK and WORLD_SIZE set, as torchrun would. None composes a config or reads a
command line of the user's. In a multirun a fork server starts the workers, which fork their ranks; all else is the
same.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from litlab.config.freeze import cores, from_yaml
from litlab.config.trust import Trust, trusted_config
from litlab.config.validate import validate
from litlab.errors import UserError
from litlab.process.child_process import Fork, count_gpus, is_fork
from litlab.process.failure import describe_error, log_traceback, record_failure
from litlab.process.ranks import global_rank, is_rank, num_local_ranks, owns_run, run_ranks, start_rank
from litlab.process.signals import STOP_SIGNALS, Stopped, StopRequest, exit_code, ignore_signals
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import directory_lock
from litlab.runs.redact import RedactingFormatter
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus
from litlab.runs.terminal import FaultTolerantStream
from litlab.tensorboard import forget_end

STARTED = time.perf_counter()


def main() -> int:
    """Train the run in the directory that the command line names; returns the exit code."""
    return work(sys.argv[1], STARTED)


def work(directory: str, started: float) -> int:
    """Train the run in a directory, in a process that started then by `time.perf_counter`; returns the exit code."""
    sys.stdout, sys.stderr = FaultTolerantStream(sys.stdout), FaultTolerantStream(sys.stderr)
    stop = StopRequest()
    try:
        stop.install()
        run = RunDirectory.existing(directory)
        config = _config(run)
        _set_threads(config)
        if run.result.exists() and read_result(run).get("status") == RunStatus.COMPLETED:
            if owns_run():
                print(f"litlab: {run.path} is complete", file=sys.stderr)
            return 0
        if not owns_run():
            return _guarded(run, config, lambda: _train(run, config, stop, started), stop)
        with directory_lock(run.path) as lock:
            run.result.unlink(missing_ok=True)
            forget_end(run)
            task = partial(_train_or_start_ranks, run, config, stop, started, lock)
            return _report(run, config, _guarded(run, config, task, stop))
    except UserError as error:
        print(f"litlab: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"litlab: {error.filename or directory}: {error.strerror}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        return stopped.exit_code


def _config(run: RunDirectory) -> dict[str, Any]:
    """
    Raises:
        UserError: if config.yaml is none of this version of litlab.
    """
    content = run.config.read_bytes()
    Trust.of(run, content).make_importable()
    try:
        config = from_yaml(content.decode())
        validate(config)
    except ValueError as error:  # UserError, or bytes that are no UTF-8
        raise UserError(f"{run.config} is damaged or not of this version of litlab: {error}") from error
    return config


def _guarded(run: RunDirectory, config: dict[str, Any], work: Callable[[], int], stop: StopRequest) -> int:
    """Do the work, and return its exit code; whatever it raises ends up in run.log and result.json."""
    try:
        return work()
    except Stopped as stopped:
        record_failure(run, config, RunStatus.INTERRUPTED, f"stopped by {stopped}")
        return stopped.exit_code
    except UserError as error:
        record_failure(run, config, RunStatus.FAILED if run.metrics.exists() else RunStatus.REFUSED, str(error))
    except Exception as error:
        if stop.received and "DataLoader worker" in str(error):  # the signal came to all processes, and ended those
            record_failure(run, config, RunStatus.INTERRUPTED, f"stopped by {Stopped(stop.received)}")
            return exit_code(stop.received)
        log_traceback(run)
        record_failure(run, config, RunStatus.FAILED, describe_error(error, run))
    return 1


def _train_or_start_ranks(
    run: RunDirectory, config: dict[str, Any], stop: StopRequest, started: float, lock: TextIO
) -> int:
    """The exit code of training, in this process or in several; the ranks of several machines torchrun has to start."""
    num_nodes = config["trainer"]["num_nodes"]
    if num_nodes > 1 and not is_rank():
        how = f"start `-m litlab.training.worker {run.path}` with torchrun on every machine"
        # not refused: the directory stays
        record_failure(run, config, RunStatus.FAILED, f"trainer.num_nodes={num_nodes}: {how}")
        return 1
    world_size = 1 if is_rank() else _world_size(config)
    if world_size == 1:
        return _train(run, config, stop, started)
    return run_ranks(world_size, stop, partial(_start_rank, run.path, lock))


def _start_rank(
    directory: Path, lock: TextIO, environment: dict[str, str], passed: Sequence[int]
) -> "Fork | subprocess.Popen[bytes]":
    """It inherits the run's lock: should this process be killed, that is free when the last rank has ended."""
    if not is_fork():
        return start_rank(directory, environment, [*passed, lock.fileno()])

    def rank() -> int:
        os.environ |= environment
        return work(str(directory), time.perf_counter())

    return Fork(rank)


def _train(run: RunDirectory, config: dict[str, Any], stop: StopRequest, started: float) -> int:
    from litlab.training.process_group import store_on_loopback
    from litlab.training.run import train

    _log_to(run.log)
    if is_fork():
        _tell_libraries()
    with store_on_loopback(strategy=config["trainer"].get("strategy", "auto")):
        train(run, trusted_config(run, config), stop, started=started, silent=_prints_to(run.log))
    return 0


def _prints_to(log: Path) -> bool:
    """Return whether the standard output is this file: then the console need not write there what it logs."""
    try:
        return os.path.samestat(os.fstat(1), log.stat())
    except OSError:
        return False


def _set_threads(config: dict[str, Any]) -> None:
    """Before anything imports torch, which takes their number from the environment once."""
    frozen = config["threads"]
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(frozen or max(1, cores() // num_local_ranks()))


def _tell_libraries() -> None:
    """What they read from the environment when they were imported, which was another one then."""
    import torch
    from lightning.fabric.utilities.rank_zero import rank_zero_only

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    rank_zero_only.rank = global_rank()  # type: ignore[attr-defined]  # its only state


def _log_to(file: Path) -> None:
    """Library messages and warnings go to run.log: the console is for what its reader can act on."""
    logging.raiseExceptions = False  # a log that can't be written is no reason to print tracebacks
    handler = logging.StreamHandler(FaultTolerantStream(file.open("a", encoding="utf-8")))
    handler.setFormatter(RedactingFormatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    threading.excepthook = _log_failure_of_thread
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _log_failure_of_thread(failed: threading.ExceptHookArgs) -> None:
    """Of TensorBoard's writer, for one: it raises its error once more where the next value is logged."""
    error = failed.exc_value or failed.exc_type()
    logging.getLogger("litlab").error("a thread ended", exc_info=error)


def _world_size(config: dict[str, Any]) -> int:
    """Ranks to start on this machine; `auto` and -1 mean as many as it has devices."""
    trainer = config["trainer"]
    devices = trainer["devices"]
    if isinstance(devices, list):
        return len(devices)
    if devices not in ("auto", -1):
        return int(devices)
    if trainer["accelerator"] == "cpu":
        return 1
    return max(1, count_gpus() if is_fork() else _gpus())


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _report(run: RunDirectory, config: dict[str, Any], code: int) -> int:
    """Say in the terminal how it ended, if it did not end well."""
    if code == 128 + signal.SIGKILL:  # the others only know that they lost it
        run.result.unlink(missing_ok=True)
        record_failure(run, config, RunStatus.FAILED, "a rank was ended by SIGKILL (out of memory?)")
    if code and not run.result.exists():
        if code in map(exit_code, STOP_SIGNALS):  # before any rank could answer
            record_failure(run, config, RunStatus.INTERRUPTED, f"stopped by {Stopped(code - 128)}")
        else:
            record_failure(run, config, RunStatus.FAILED, f"a rank ended with exit code {code}")
    if not run.result.exists():  # it could not be written, which has been said
        return code
    result = read_result(run)
    if result["status"] == RunStatus.INTERRUPTED:
        print(f"litlab: {result['error']}; the run is in {run.path}", file=sys.stderr)
    elif result["status"] == RunStatus.REFUSED:
        print(f"litlab: {result['error']}", file=sys.stderr)
    elif result["status"] == RunStatus.FAILED:
        print(f"litlab: {result['error']}\nlitlab: the run failed; its log is {run.log}", file=sys.stderr)
    return code


if __name__ == "__main__":
    code = main()
    ignore_signals()
    sys.exit(code)
