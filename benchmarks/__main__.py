"""`python -m benchmarks`: one command, one table."""

import argparse
import os
import sys
from collections.abc import Callable

from benchmarks import comparing, data_path, multirun, pruning, settings, startup, training
from benchmarks.harness import Row
from benchmarks.report import machine, table

ROWS: dict[str, Callable[[settings.Settings], list[Row]]] = {
    "data": data_path.rows,
    "training": training.throughput_rows,
    "step": training.step_rows,
    "startup": startup.rows,
    "multirun": multirun.rows,
    "search": pruning.rows,
    "comparing": comparing.rows,
}


def main() -> None:
    parser = _parser()
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.rows if name not in ROWS]:
        parser.error(f"no such row: {', '.join(unknown)}; known: {', '.join(ROWS)}")
    chosen = settings.quick() if arguments.quick else settings.full(arguments.data)
    before = machine()
    measured: list[Row] = []
    for name in arguments.rows or ROWS:
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        measured += ROWS[name](chosen)
    print(f"{before}\n{chosen.images}; {chosen.num_rounds} rounds, start-up {chosen.num_startups}\n")
    print(table(measured, markdown=arguments.markdown))


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
