"""`python -m benchmarks`: one command, one table."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable

import torch

from benchmarks import (
    against_usual,
    comparing,
    data_path,
    gpu,
    gpu_graphs,
    gpu_multirun,
    gpu_resume,
    kept_memory,
    multirun,
    pruning,
    settings,
    size,
    size_of_studies,
    slurm,
    slurm_launchers,
    speedrun,
    startup,
    streaming,
    time_to_accuracy,
    training,
)
from benchmarks.harness import Row
from benchmarks.public_scripts import SCRIPTS
from benchmarks.report import machine, table
from litlab.errors import UserError

GPU = "gpu."
# Those that take little time come first; on a GPU, which may be rented, those that matter most.
ROWS: dict[str, Callable[[settings.Settings], list[Row]]] = {
    "step": training.step_rows,
    "comparing": comparing.rows,
    "startup": startup.rows,
    "data": data_path.rows,
    "stream": streaming.rows,
    "training": training.throughput_rows,
    "memory": kept_memory.rows,
    f"{GPU}speedrun": speedrun.rows,
    f"{GPU}resume": gpu_resume.rows,
    f"{GPU}multirun": gpu_multirun.rows,
    f"{GPU}graphs": gpu_graphs.rows,
    f"{GPU}training": gpu.training_rows,
    f"{GPU}data": gpu.data_rows,
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
    names = [name for row in arguments.rows or ROWS for name in _named(row)]
    if unknown := [row for row in arguments.rows if not _named(row)]:
        parser.error(f"no such row: {', '.join(unknown)}; known: gpu, {', '.join(ROWS)}")
    chosen = settings.quick(arguments.scripts) if arguments.quick else settings.full(arguments.data, arguments.scripts)
    try:
        notes = speedrun.notes(chosen) if f"{GPU}speedrun" in names else []
    except UserError as error:
        parser.error(str(error))
    if not torch.cuda.is_available() and any(name.startswith(GPU) for name in names):
        names, notes = [name for name in names if not name.startswith(GPU)], [NO_GPU]
    before = machine()
    measured: list[Row] = []
    failed = []
    for name in names:
        try:
            measured += _measure(name, chosen)
        except Exception:  # the others are measured nevertheless, since a machine may be rented, or the whole take long
            traceback.print_exc()
            failed.append(name)
    notes += [f"{name}: failed, see the traceback above" for name in failed]
    print(f"{before}\n{chosen.images}; {chosen.num_rounds} rounds, start-up {chosen.num_startups}\n")
    print("\n".join([table(measured, markdown=arguments.markdown), *notes]))
    sys.exit(bool(failed))


def _named(row: str) -> list[str]:
    """Return the rows of a name: its own, or those of a group."""
    return [name for name in ROWS if name == row or name.startswith(f"{row}.")]


def _measure(name: str, chosen: settings.Settings) -> list[Row]:
    """Measure one row and show it at once, since the whole takes long."""
    print(f"measuring {name} ...", file=sys.stderr, flush=True)
    began = time.perf_counter()
    rows = ROWS[name](chosen)
    print(f"{table(rows, markdown=False)}\n{time.perf_counter() - began:.0f} s\n", file=sys.stderr, flush=True)
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="litlab side by side with the usual way")
    known = f"of {', '.join(ROWS)}, or gpu for all of gpu.*; all where none is named"
    parser.add_argument("rows", nargs="*", metavar="ROW", help=known)
    parser.add_argument("--quick", action="store_true", help="tiny data, to see that it runs; the numbers mean nothing")
    parser.add_argument("--markdown", action="store_true", help="the table as docs/benchmarks.md has it")
    parser.add_argument(
        "--data",
        metavar="PATH",
        default=os.environ.get("LITLAB_CIFAR10"),
        help="CIFAR-10 as a folder or archive of images, by default $LITLAB_CIFAR10; without it, synthetic images",
    )
    parser.add_argument(
        "--scripts",
        metavar="FOLDER",
        help=f"for gpu.speedrun: a folder with {' and '.join(script.file for script in SCRIPTS)}, which are executed",
    )
    return parser


if __name__ == "__main__":
    main()
