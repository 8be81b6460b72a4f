"""`python -m benchmarks.warm_litlab FOLDER OVERRIDES`: train runs of litlab on request in one process, see `serve`.

Imports, CUDA's start and the caches of compiled code are those of a warm process. Everything else is a run as any
other: config, directory, data from the cache, training, test, result. The number of the request is the seed.
"""

import sys
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.counted_region import RECORD
from benchmarks.runs import compose_config, new_run
from benchmarks.warm_process import serve
from litlab.process.signals import StopRequest
from litlab.runs.result import read_result
from litlab.runs.state import RunStatus
from litlab.training.run import train

_REGION = "+callbacks.counted_region._target_=benchmarks.counted_region.CountedRegion"
COUNTED = ("whitening", "training", "test")


def run(folder: Path, overrides: tuple[str, ...], number: int) -> dict[str, float]:
    """Train and test once.

    Returns:
        Accuracy (0 to 1), counted seconds, and the seconds of their parts.
    """
    if "torch._dynamo" in sys.modules:  # or the code of earlier networks would count towards a limit
        torch.compiler.reset()
    config = compose_config(*overrides, f"seed={number}", _REGION)
    directory = new_run(folder / f"seed_{number}", config)
    status = train(directory, config, StopRequest(), started=time.perf_counter(), silent=True)
    assert status is RunStatus.COMPLETED, status
    parts = directory.read_json(directory.path / RECORD)
    accuracy = read_result(directory)["test"]["test/accuracy"]
    return {"accuracy": accuracy, "seconds": sum(parts[name] for name in COUNTED), **parts}


if __name__ == "__main__":
    serve(partial(run, Path(sys.argv[1]), tuple(sys.argv[2:])))
