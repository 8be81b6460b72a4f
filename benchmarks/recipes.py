"""`python -m benchmarks.recipes`: accuracy and time of the README's recipes over seeds, as whole processes."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import Row
from benchmarks.report import machine
from benchmarks.runs import program
from litlab.runs.directory import RunDirectory
from litlab.runs.result import read_result


@dataclass(frozen=True)
class Recipe:
    """Recipe to be measured.

    Attributes:
        overrides: Overrides that select it.
        num_seeds: Seeds 0, 1, 2, ... unless the command line names others.
        data: Further overrides on other images; None if the recipe brings its images.
        on_gpu: Skip it without a GPU, unless it is named.
    """

    overrides: tuple[str, ...]
    num_seeds: int
    data: tuple[str, ...] | None = ()
    on_gpu: bool = False


RECIPES = {
    "quickstart": Recipe(("experiment=quickstart",), 3, data=None),
    "default": Recipe((), 3, data=("data.val_size=5000",)),
    "tutorial": Recipe(("experiment=tutorial",), 3),
    "sprint": Recipe(("experiment=sprint",), 5),
    "fast_cpu": Recipe(("experiment=fast_cpu",), 5),
    "accurate_cpu": Recipe(("experiment=accurate_cpu",), 2),
    "speedrun": Recipe(("experiment=speedrun",), 5, on_gpu=True),
}


@dataclass(frozen=True)
class Outcome:
    """Outcome of a recipe.

    Attributes:
        seconds: Whole command, from start to exit.
        training: Seconds of training alone.
    """

    test_accuracy: float
    seconds: float
    training: float


def run(*overrides: str) -> Outcome:
    """Run `litlab train` from start to end."""
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        command = [sys.executable, "-m", "litlab", "train", *overrides]
        start = time.perf_counter()
        subprocess.run([*command, f"hydra.run.dir={directory.path}"], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        result = read_result(directory)
        return Outcome(result["test"]["test/accuracy"], seconds, result["seconds"]["training"])


def run_program(name: str, *arguments: object) -> Outcome:
    """Run a benchmark module that trains; its last line of output is a JSON object with accuracy and seconds."""
    start = time.perf_counter()
    record = json.loads(program(name, *arguments).splitlines()[-1])
    seconds = time.perf_counter() - start
    return Outcome(record["accuracy"], seconds, record["training"])


def outcome_rows(name: str, ours: Sequence[Outcome], against: str = "", theirs: Sequence[Outcome] = ()) -> list[Row]:
    """Return rows of the seconds of training, of the whole process, and of the test accuracy."""
    quantities = [("training", "s", "training", 1), ("whole process", "s", "seconds", 1)]
    quantities += [("test accuracy", "%", "test_accuracy", 100)]
    return [
        Row(
            f"{name}: {quantity}",
            unit,
            tuple(scale * getattr(outcome, attribute) for outcome in ours),
            against,
            tuple(scale * getattr(outcome, attribute) for outcome in theirs),
        )
        for quantity, unit, attribute, scale in quantities
    ]


def line(name: str, outcomes: list[Outcome]) -> str:
    """Format a row of the table: mean and sample deviation of the accuracy, median times."""
    accuracies = [100 * outcome.test_accuracy for outcome in outcomes]
    spread = f" ± {statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
    whole = statistics.median(outcome.seconds for outcome in outcomes)
    training = statistics.median(outcome.training for outcome in outcomes)
    return f"| {name} | {statistics.mean(accuracies):.1f}{spread} | {len(outcomes)} | {whole:.0f} | {training:.0f} |"


def main() -> None:
    """Run the recipes one by one, seed by seed, and print a Markdown table; ten steps of each fill the caches."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recipes", description="what the recipes reach")
    parser.add_argument(
        "recipes", nargs="*", metavar="RECIPE", help=f"of {', '.join(RECIPES)}; all where none is named"
    )
    parser.add_argument("--seeds", type=int, nargs="+", help="by default 0, 1, 2, ..., as many as the recipe has")
    parser.add_argument("--data", metavar="PATH", default=os.environ.get("LITLAB_CIFAR10"), help="as for benchmarks")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.recipes if name not in RECIPES]:
        parser.error(f"no such recipe: {', '.join(unknown)}; known: {', '.join(RECIPES)}")
    print(machine(), flush=True)
    print("| recipe | test accuracy, % | seeds | seconds in all | seconds of training |\n|---|---:|---:|---:|---:|")
    for name in arguments.recipes or _supported_recipes():
        recipe = RECIPES[name]
        overrides = recipe.overrides
        if recipe.data is not None and arguments.data:
            overrides += ("data=image_folder", f"data.root='{arguments.data}'", *recipe.data)
        run(*overrides, "trainer.max_steps=10")
        seeds = arguments.seeds or range(recipe.num_seeds)
        print(line(name, [run(*overrides, f"seed={seed}") for seed in seeds]), flush=True)


def _supported_recipes() -> list[str]:
    gpu = torch.cuda.is_available()
    for name in (name for name, recipe in RECIPES.items() if recipe.on_gpu and not gpu):
        print(f"{name}: left out, since there is no GPU", file=sys.stderr)
    return [name for name, recipe in RECIPES.items() if gpu or not recipe.on_gpu]


if __name__ == "__main__":
    main()
