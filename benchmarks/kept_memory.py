"""Memory that malloc gives back to the kernel: the same training in processes that keep it and in others."""

import json
import resource
import sys
import time
from functools import partial
from itertools import islice

import torch

from benchmarks.bare import BareLoop
from benchmarks.harness import Row, interleaved
from benchmarks.loading import memory
from benchmarks.runs import compose_config, program
from benchmarks.settings import Settings
from litlab.data.module import ImageDataModule
from litlab.process.allocator import keep_freed_memory
from litlab.training.build import assemble
from litlab.training.checkpoint_io import hash_weights

KEPT, DEFAULT = "kept", "default"
UNITS = {"step": "s", "core time of a step": "s", "page faults of a step": "", "peak memory": "MiB"}
# The network of Jordan 2024 (arXiv:2404.00498) with fewer channels, on one thread, in float32.
_LARGE = (
    "experiment=fast_cpu", "data=shapes", "data.val_size=0", "data.progressive_sizes=null", "threads=1",
    "model.activation=relu",
)  # fmt: skip
_NUM_WARMUP = 2  # steps that find the memory


def rows(settings: Settings) -> list[Row]:
    """Measure time, page faults and memory in processes in turn, and compare the bits of the weights."""
    measured: dict[str, list[dict[str, float]]] = {KEPT: [], DEFAULT: []}
    hashes = set()

    def measure(name: str) -> None:
        *values, weights = json.loads(program("kept_memory", name, settings.num_large_steps, *settings.large_network))
        measured[name].append(dict(zip(UNITS, values, strict=True)))
        hashes.add(weights)

    interleaved({name: partial(measure, name) for name in measured}, num_warmup=0, num_rounds=settings.num_rounds)
    assert len(hashes) == 1, "the weights depend on where malloc finds memory"
    return [
        Row(
            f"large network, memory kept: {quantity}",
            unit,
            tuple(values[quantity] for values in measured[KEPT]),
            "malloc's default",
            tuple(values[quantity] for values in measured[DEFAULT]),
        )
        for quantity, unit in UNITS.items()
    ]


def train(num_steps: int, *overrides: str) -> list[float | str]:
    """Train for some steps by hand; return the values of `UNITS`, then the hash of the weights."""
    torch.set_num_threads(1)
    config = compose_config(*_LARGE, *overrides)
    experiment = assemble(config, rank=0)
    assert isinstance(experiment.data, ImageDataModule)
    assert experiment.network is not None
    loop = BareLoop(experiment.network, experiment.data, config)
    steps = loop.steps(epoch=0)
    for _ in islice(steps, _NUM_WARMUP):
        pass
    before = _used()
    for _ in islice(steps, num_steps):
        pass
    costs = [(end - start) / num_steps for start, end in zip(before, _used(), strict=True)]
    return [*costs, memory("VmHWM"), hash_weights(loop.network.state_dict())]


def _used() -> tuple[float, float, int]:
    """Return the seconds of the clock and of the processor, and the page faults so far."""
    return time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt


if __name__ == "__main__":
    if sys.argv[1] == KEPT:
        assert keep_freed_memory(), "the C library has no such setting"
    print(json.dumps(train(int(sys.argv[2]), *sys.argv[3:])))
