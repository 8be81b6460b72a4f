"""`python -m benchmarks.recipes`: what the recipes of the README reach, over seeds; whole `litlab train` processes."""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import machine
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result

# Recipe -> overrides, and whether it is for CIFAR-10. A warm-up of one epoch fills the caches first.
RECIPES: dict[str, tuple[tuple[str, ...], bool]] = {
    "quickstart": (("experiment=quickstart",), False),
    "default": ((), True),
    "tutorial": (("experiment=tutorial",), True),
}


@dataclass(frozen=True)
class Outcome:
    """
    seconds: of the whole command, from start to exit.
    training: seconds of training alone.
    """

    test_accuracy: float
    seconds: float
    training: float


def run(*overrides: str) -> Outcome:
    """One `litlab train` on the CPU, from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        command = [sys.executable, "-m", "litlab", "train", *overrides]
        start = time.perf_counter()
        subprocess.run([*command, f"hydra.run.dir={directory.path}"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        result = read_result(directory)
        return Outcome(result["test"]["test/accuracy"], seconds, result["seconds"]["training"])


def line(name: str, outcomes: list[Outcome]) -> str:
    """A row of the table: mean and sample deviation of the accuracy, median times."""
    accuracies = [100 * each.test_accuracy for each in outcomes]
    spread = f" ± {statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    whole, training = (
        statistics.median(values) for values in zip(*((o.seconds, o.training) for o in outcomes), strict=True)
    )
    return f"| {name} | {statistics.mean(accuracies):.1f}{spread} | {len(outcomes)} | {whole:.0f} | {training:.0f} |"


def main() -> None:
    """Run the recipes one after the other, seed by seed, and print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description="what the recipes reach")
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; all where none is named"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", metavar="PATH", default=os.environ.get("LITLAB_CIFAR10"), help="as for benchmarks")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.recipes if name not in RECIPES]:
        parser.error(f"no such recipe: {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    print(machine(), flush=True)
    print("| recipe | test accuracy, % | seeds | seconds in all | seconds of training |\n|---|---:|---:|---:|---:|")
    for name in arguments.recipes or RECIPES:
        overrides, on_cifar10 = RECIPES[name]
        if on_cifar10 and arguments.data:
            overrides += ("data=image_folder", f"data.root='{arguments.data}'")
            if name == "default":
                overrides += ("data.val_size=5000",)
        run(*overrides, "+trainer.max_steps=10")
        print(line(name, [run(*overrides, f"seed={seed}") for seed in arguments.seeds]), flush=True)


if __name__ == "__main__":
    main()
