"""`litlab evaluate`: the metrics of a run's checkpoint, once more."""

import json
import os
import sys
from argparse import Namespace
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from litlab.cli.arguments import add_allow, add_run, new_parser
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.process.controller import is_rank_variable
from litlab.runs.result import nonfinite_to_none

MOVABLE = ("data.root", "data.cache")
PARTS = ("seed", "data", "model", "task", "optimizer", "schedule", "trainer")
NOTES = """\
Runs on one device, with the run's own task, precision and number of threads; on the machine it was trained on, the test
metrics are those of result.json to the last bit. The callbacks of the config do not run, and no file is written.

examples:
  litlab evaluate outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c
  litlab evaluate DIR --split val --checkpoint last --json
  litlab evaluate DIR --set data.root=/datasets/cifar10
  litlab evaluate /tmp/from_a_colleague --allow their_package
"""


def main(arguments: list[str]) -> None:
    """Evaluate and print.

    Raises:
        UserError: if the run, its data or the command line don't allow it.
    """
    options = _options(arguments)
    finished = FinishedRun.open(options.run, options.allow, PARTS)
    checkpoint = finished.find_checkpoint(options.checkpoint)
    _check(finished, options)
    _prepare_process(finished.config["threads"])
    with redirect_stdout(sys.stderr):  # whatever a library or a task prints: standard output is for the metrics
        config = _config(finished, options.set)
        from litlab.inference.evaluate import evaluate

        measured = evaluate(finished, config, checkpoint, split=options.split, device=options.device)
    found = {"run": str(finished.run.path), "checkpoint": checkpoint.stem, "split": options.split} | measured
    print(json.dumps(nonfinite_to_none(found), indent=2, ensure_ascii=False) if options.json else _table(found))


def _options(arguments: list[str]) -> Namespace:
    parser = new_parser("evaluate", "Metrics of a run's checkpoint over a split of its data, once more.", NOTES)
    add_run(parser)
    add_allow(parser)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="default: test")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: the run's own kind where there is one, else cpu",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=PATH", help=f"where the data are now: {' or '.join(MOVABLE)}"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args(arguments)


def _check(finished: FinishedRun, options: Namespace) -> None:
    """What needs no torch to be refused."""
    data = finished.config["data"]
    for change in options.set:
        key, equals, _ = change.partition("=")
        if key not in MOVABLE or not equals:
            raise UserError(
                f"--set {change}: only {' and '.join(MOVABLE)} can be set, as KEY=PATH; the rest is the run's"
            )
        name = key.removeprefix("data.")
        if name not in data:
            raise UserError(f"--set {change}: this run's data, {data['_target_']}, have no {name!r}")
    if options.split == "val" and finished.run.dataset.exists() and finished.dataset_info().num_val == 0:
        raise UserError(f"--split val: {finished.run.path} has no validation images (data.val_size)")


def _config(finished: FinishedRun, changes: list[str]) -> dict[str, Any]:
    """The parts of the config that evaluation needs, with the data where they are now."""
    config = finished.select_settings(*PARTS)
    for key, _, value in (change.partition("=") for change in changes):
        config["data"][key.removeprefix("data.")] = value
    return config


def _prepare_process(threads: int | None) -> None:
    """As a worker has it: its threads, and no ranks that another launcher left in the environment."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(threads)
    for name in list(os.environ):
        if is_rank_variable(name):
            del os.environ[name]


def _table(found: dict[str, Any]) -> str:
    width = max(map(len, found["metrics"]), default=0)
    head = f"{Path(found['run'])}  {found['checkpoint']} checkpoint, {found['split']} split, {found['device']}"
    return "\n".join([head, *(f"  {name:<{width}}  {value:.6f}" for name, value in found["metrics"].items())])
