"""`python -m benchmarks`: one command, one table."""

import argparse
import os
import sys
import time
from collections.abc import Callable

import torch

from benchmarks import (
    against_usual,
    comparing,
    data_path,
    gpu,
    multirun,
    pruning,
    settings,
    size,
    size_of_studies,
    slurm,
    slurm_launchers,
    startup,
    streaming,
    time_to_accuracy,
    training,
)
from benchmarks.harness import Row
from benchmarks.report import machine, table

# Those that take little time come first.
ROWS: dict[str, Callable[[settings.Settings], list[Row]]] = {
    "step": training.step_rows,
    "comparing": comparing.rows,
    "startup": startup.rows,
    "data": data_path.rows,
    "stream": streaming.rows,
    "training": training.throughput_rows,
    "gpu": gpu.rows,
    "usual": against_usual.rows,
    "size": lambda chosen: [
        *size.rows(chosen),
        *size_of_studies.rows(chosen),
        *slurm.rows(chosen),
        *slurm_launchers.rows(chosen),
    ],
    "search": pruning.rows,
    "time": time_to_accuracy.rows,
    "multirun": multirun.rows,
}
NO_GPU = "gpu: left out, since there is no GPU"


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; known: {', '.join(ROWS)}")
    chosen = settings.quick() if arguments.quick else settings.full(arguments.data)
    before = machine()
    names = arguments.rows or list(ROWS)
    notes = [NO_GPU] if "gpu" in names and not torch.cuda.is_available() else []
    measured: list[Row] = []
    for name in names:
        if name != "gpu" or not notes:
            measured += _measure(name, chosen)
    print(f"{before}\n{chosen.images}; {chosen.num_rounds} rounds, start-up {chosen.num_startups}\n")
    print("\n".join([table(measured, markdown=arguments.markdown), *notes]))


def _measure(name: str, chosen: settings.Settings) -> list[Row]:
    """Measure one row and show it at once, since the whole takes long."""
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    rows = ROWS[name](chosen)
    print(f"{table(rows, markdown=False)}\n{time.perf_counter() - began:.0f} s\n", file=sys.stderr, flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="litlab side by side with the usual way")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all where none is named")
    parser.add_argument("--quick", action="store_true", help="tiny data, to see that it runs; the numbers mean nothing")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/benchmarks.md has it")
    parser.add_argument(
        "--data",
        metavar="PATH",
        default=os.environ.get("LITLAB_CIFAR10"),
        help="CIFAR-10 as a folder or archive of images, by default $LITLAB_CIFAR10; without it, synthetic images",
    )
    return parser


if __name__ == "__main__":
    main()
