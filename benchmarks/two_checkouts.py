"""Compare the speed of two checkouts: `python -m benchmarks.two_checkouts OLD NEW --pairs 7`.

Each pair measures both checkouts once, by their own benchmarks in their own `.venv`, in alternating order. A ratio
above 1 means that NEW takes longer, for every row: rates are inverted. The interval is that of the median by order
statistics (binomial, at least 95 %), so it needs no assumption about the noise of the machine.
"""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from statistics import median

ROWS = ("step", "training", "data", "startup", "comparing", "multirun")
# Small enough that a pair takes minutes; synthetic images; without the contenders of a multirun, which take longest.
MEASURE = """
import json, statistics, sys
from dataclasses import replace
from benchmarks import __main__ as bench, multirun, settings
multirun.usual = multirun.ideal = lambda *arguments: None
images = ("data=shapes", "data.num_train=8000", "data.num_test=500", "data.val_size=500")
few_images = (*images[:1], "data.num_train=2000", *images[2:])
chosen = replace(
    settings.full(None), data=images, multirun_data=few_images, threads=(2,), num_rounds=1, num_startups=1,
    num_steps=300, num_step_rounds=3, num_multiruns=1, num_seeds=1, num_frozen=50, num_compared=300,
)
for row in bench.ROWS[sys.argv[1]](chosen):
    print("ROW " + json.dumps([row.name, row.unit, statistics.median(row.ours)]))
"""


def main() -> None:
    """Measure the pairs and print one line a row."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.two_checkouts", description=__doc__.split("\n\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("rows", nargs="*", default=ROWS, metavar="ROW", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path, help="a JSON file for every measured value, rewritten after each pair")
    options = parser.parse_args()
    checkouts = {"old": options.old.resolve(), "new": options.new.resolve()}
    values: dict[str, dict[str, list[float]]] = {}
    for number in range(options.pairs):
        for row in options.rows:
            for side in list(checkouts)[:: -1 if number % 2 else 1]:
                for name, value in measure(checkouts[side], row).items():
                    values.setdefault(name, {"old": [], "new": []})[side].append(value)
        if options.out:
            options.out.write_text(json.dumps(values, indent=1), encoding="utf-8")
        print(f"pair {number + 1} of {options.pairs} done", file=sys.stderr, flush=True)
    print(table(values))


def measure(checkout: Path, row: str) -> dict[str, float]:
    """Measure one benchmark row of a checkout.

    Returns:
        Name of each line -> seconds, microseconds or MiB; for a rate, the seconds per image.
    """
    command = [str(checkout / ".venv" / "bin" / "python"), "-c", MEASURE, row]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{row} in {checkout} ended with exit code {done.returncode}:\n{done.stderr}")
    lines = [json.loads(line[4:]) for line in done.stdout.splitlines() if line.startswith("ROW ")]
    return {f"{name.strip()} [{unit}]": 1 / value if unit.endswith("/s") else value for name, unit, value in lines}


def table(values: dict[str, dict[str, list[float]]]) -> str:
    """Format the ratios NEW / OLD: median, interval of the median, number of pairs."""
    lines = [f"{'row':<60} {'new / old':>9}  {'95 % interval':>15}  pairs"]
    for name, sides in values.items():
        ratios = sorted(new / old for old, new in zip(sides["old"], sides["new"], strict=True) if old > 0)
        if not ratios:
            continue
        low, high = interval(ratios)
        lines.append(f"{name:<60} {median(ratios):>9.3f}  {f'{low:.3f} to {high:.3f}':>15}  {len(ratios)}")
    return "\n".join(lines)


def interval(ordered: list[float]) -> tuple[float, float]:
    """Return the narrowest pair of order statistics that covers the median with at least 95 %, or the extremes."""
    num = len(ordered)
    tail, rank = 0.0, 0
    while (tail := tail + math.comb(num, rank) / 2**num) <= 0.025:
        rank += 1
    return ordered[max(rank - 1, 0)], ordered[num - 1 - max(rank - 1, 0)]


if __name__ == "__main__":
    main()
