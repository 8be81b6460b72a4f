"""`python -m benchmarks.loading OVERRIDES`: cost of loading a data set in a process of its own, as JSON."""

import json
import sys
import time
from pathlib import Path
from typing import TypedDict

import torch

from benchmarks.data_path import Epochs, exhaust, prepared
from benchmarks.runs import compose_config
from litlab.data.module import ImageDataModule
from litlab.runs.processor import num_cores
from litlab.training.build import build_data

_FEW = ("data=shapes", "data.num_train=100", "data.num_test=20", "data.val_size=20")


class Cost(TypedDict):
    """Cost of loading a data set.

    Attributes:
        seconds: Until the images are loaded.
        images_per_second: Data path in the second epoch.
        mebibytes: Peak growth of the process up to the end of the second epoch, beyond what libraries allocate at
            their first use (some 20 MiB), which a few images have paid before.
        pixels: Mebibytes of the images themselves, as uint8.
    """

    seconds: float
    images_per_second: float
    mebibytes: float
    pixels: float


def main(*overrides: str) -> Cost:
    torch.set_num_threads(num_cores())
    exhaust(Epochs(prepared(*_FEW)))
    config = compose_config(*overrides)
    before = memory("VmRSS")
    began = time.perf_counter()
    data = build_data(config)
    seconds = time.perf_counter() - began
    assert isinstance(data, ImageDataModule)
    epochs = Epochs(data)
    exhaust(epochs)
    began = time.perf_counter()
    exhaust(epochs)
    return Cost(
        seconds=seconds,
        images_per_second=len(data.train_indices) / (time.perf_counter() - began),
        mebibytes=memory("VmHWM") - before,
        pixels=(data.arrays.train_images.numel() + data.arrays.test_images.numel()) / 2**20,
    )


def memory(field: str) -> float:
    """Return a field of /proc/self/status in MiB, whose peak, unlike getrusage's, does not begin with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
