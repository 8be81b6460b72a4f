"""Runs that are stopped and resumed in this process, and the comparison with an uninterrupted run."""

import signal
import time
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from support.runs import compose_config

from litlab.config.config_file import to_yaml
from litlab.process.signals import Stopped, StopRequest
from litlab.runs.directory import RunDirectory
from litlab.runs.initial_weights import keep_weights
from litlab.runs.metrics import read_metrics
from litlab.runs.result import read_result
from litlab.training.checkpoint_io import read_checkpoint

_TIMED = ("seconds_saving", "training", "sizes")


class StopsAt(StopRequest):
    """Request to stop that appears right before the `number`-th look for it, counted from 1; None for never."""

    def __init__(self, number: int | None) -> None:
        super().__init__()
        self.looks = 0
        self._number = number

    def pending(self) -> int:
        self.looks += 1
        if self.looks == self._number:
            self.received = signal.SIGTERM
        return super().pending()


def new_run(directory: Path, *overrides: str) -> tuple[RunDirectory, dict[str, Any]]:
    """Create a run directory as `litlab train` does, without training."""
    config = deepcopy(_compose(*overrides))
    run = RunDirectory.create(directory, to_yaml(config), {})
    keep_weights(run, config)
    return run, config


@lru_cache(maxsize=1)  # a test stops several runs of one config
def _compose(*overrides: str) -> dict[str, Any]:
    return compose_config(*overrides)


def train_until(run: RunDirectory, config: dict[str, Any], number: int | None) -> int | None:
    """Train or resume in this process.

    Returns:
        Number of looks for a signal; None if one stopped the run.
    """
    from litlab.training.run import train

    stop = StopsAt(number)
    try:
        train(run, config, stop, started=time.perf_counter())
    except Stopped:
        return None
    return stop.looks


def stop_and_resume(directory: Path, number: int, *overrides: str) -> RunDirectory:
    """Train until the `number`-th look for a signal, and resume to the end."""
    run, config = new_run(directory, *overrides)
    assert train_until(run, config, number) is None
    assert number == 1 or run.last.exists(), "nothing was saved"
    train_until(run, config, None)
    return run


def outcome(run: RunDirectory) -> dict[str, Any]:
    """Collect what two bit-equal runs agree in: state, rows and result, without times and speeds."""
    rows = [row for row in read_metrics(run.metrics) if not row.metric.startswith("throughput")]
    result = {key: read_result(run)[key] for key in ("best", "last", "test", "objective", "weights", "epochs", "steps")}
    best = {"best": _state(run.best)} if run.best.exists() else {}
    return {"rows": rows, "result": result, "last": _state(run.last), **best}


def _state(path: Path) -> dict[str, Any]:
    checkpoint = read_checkpoint(path)
    saved = checkpoint.get("litlab", {})  # missing in a best checkpoint with weights alone
    return checkpoint | {"litlab": {key: value for key, value in saved.items() if key not in _TIMED}}


def differences(left: Any, right: Any, path: str = "") -> list[str]:
    """List the places where two nested values differ; tensors are compared bit by bit."""
    if isinstance(left, dict) and isinstance(right, dict):
        keys = [*left, *(key for key in right if key not in left)]
        return [line for key in keys for line in differences(left.get(key), right.get(key), f"{path}.{key}")]
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [line for i, pair in pairs for line in differences(*pair, f"{path}.{i}")]
    if isinstance(left, torch.Tensor) and isinstance(right, torch.Tensor):
        return [] if left.dtype == right.dtype and torch.equal(left, right) else [path]
    return [] if left == right or (left != left and right != right) else [f"{path}: {left} != {right}"]
