"""One run directory in, one result out: `python -m litlab.worker DIR`. The only place where training starts.

The process that is started trains itself, or starts a process per device and waits for them; each of these is started
the same way, with RANK, LOCAL_RANK and WORLD_SIZE set, as torchrun and srun would. None composes a config or reads a
command line of the user's.
"""

import logging
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from litlab.config.freeze import cores, from_yaml, with_secrets
from litlab.config.identity import identity
from litlab.config.location import add_project_to_path
from litlab.errors import UserError
from litlab.ranks import is_rank, run_ranks
from litlab.runs.directory import RunDirectory
from litlab.runs.lock import owning
from litlab.runs.result import Result, Status, read_result, write_result
from litlab.signals import STOPPING, Stopped, StopRequest

STARTED = time.perf_counter()


def main() -> int:
    """Train the run in the directory that the command line names; returns the exit code."""
    stop = StopRequest()
    try:
        stop.install()
        run = RunDirectory.existing(sys.argv[1])
        add_project_to_path(run.project())
        config = from_yaml(run.config.read_text(encoding="utf-8"))
        if is_rank():
            return _guarded(run, config, stop)
        with owning(run.path):
            run.result.unlink(missing_ok=True)
            world_size = _world_size(config)
            code = _guarded(run, config, stop) if world_size == 1 else run_ranks(run.path, world_size, stop)
            return _report(run, config, code)
    except UserError as error:
        print(f"litlab: {error}", file=sys.stderr)
        return 1
    except Stopped as stopped:
        return stopped.exit_code


def _guarded(run: RunDirectory, config: dict[str, Any], stop: StopRequest) -> int:
    """Train; whatever goes wrong ends up in run.log and result.json."""
    try:
        _train(run, with_secrets(config), stop)
        return 0
    except Stopped as stopped:
        _write_end(run, config, "interrupted", f"stopped by {stopped}")
        return stopped.exit_code
    except UserError as error:
        _write_end(run, config, "failed" if run.metrics.exists() else "refused", str(error))
    except Exception as error:
        with run.log.open("a", encoding="utf-8") as log:
            traceback.print_exc(file=log)
        _write_end(run, config, "failed", _in_users_words(error))
    return 1


def _train(run: RunDirectory, config: dict[str, Any], stop: StopRequest) -> None:
    """Set the threads, then import torch: it takes their number from the environment once."""
    os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(_threads(config))
    from litlab.training import train

    _log_to(run.log)
    train(run, config, stop, started=STARTED)


def _log_to(file: Path) -> None:
    """Library messages and warnings go to run.log: the console is for what its reader can act on."""
    handler = logging.FileHandler(file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning_fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _threads(config: dict[str, Any]) -> int:
    frozen = config["threads"]
    return int(frozen) if frozen else max(1, cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _world_size(config: dict[str, Any]) -> int:
    """Ranks to start on this machine; `auto` and -1 mean as many as it has devices.

    Raises:
        UserError: if the config asks for several machines: then their scheduler has to start the ranks.
    """
    trainer = config["trainer"]
    if trainer["num_nodes"] > 1:
        raise UserError(
            f"trainer.num_nodes={trainer['num_nodes']}: start `python -m litlab.worker {sys.argv[1]}` on every machine "
            f"with torchrun or srun"
        )
    devices = trainer["devices"]
    if isinstance(devices, list):
        return len(devices)
    if devices not in ("auto", -1):
        return int(devices)
    if trainer["accelerator"] == "cpu":
        return 1
    import torch

    return max(1, torch.cuda.device_count())


def _write_end(run: RunDirectory, config: dict[str, Any], status: Status, error: str) -> None:
    if not run.result.exists():  # the first rank to fail knows the cause
        write_result(run, Result(status=status, identity=identity(config), error=error))


def _in_users_words(error: Exception) -> str:
    """The error with the frames of the user's own code: not ours, and no library's."""
    own = str(Path(__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [f for f in frames if not f.filename.startswith((own, "<")) and "site-packages" not in f.filename]
    theirs = [f for f in theirs if not f.filename.startswith((sys.prefix, sys.base_prefix))]
    said = "".join(traceback.format_exception_only(error)).strip()
    return said if not theirs else "".join(traceback.format_list(theirs)).rstrip() + "\n" + said


def _report(run: RunDirectory, config: dict[str, Any], code: int) -> int:
    """Say in the terminal how it ended, if it did not end well."""
    if code and not run.result.exists():
        if code - 128 in STOPPING:  # before any rank could answer
            _write_end(run, config, "interrupted", f"stopped by {Stopped(code - 128)}")
        else:
            _write_end(run, config, "failed", f"a rank ended with exit code {code}")
    result = read_result(run)
    if result["status"] == "interrupted":
        print(f"litlab: {result['error']}; the run is in {run.path}", file=sys.stderr)
    elif result["status"] == "refused":
        print(f"litlab: {result['error']}", file=sys.stderr)
    elif result["status"] == "failed":
        print(f"litlab: {result['error']}\nlitlab: the run failed; its log is {run.log}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
