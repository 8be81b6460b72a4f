"""Compute the metrics of a run's checkpoint again."""

import json
import os
import sys
from argparse import ArgumentParser
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from litlab.cli.arguments import add_allow, add_run, new_parser
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.process.controller import is_rank_variable, thread_variables
from litlab.runs.result import nonfinite_to_none

SETTABLE_KEYS = ("data.root", "data.path", "data.cache")
GROUPS = ("seed", "data", "model", "task", "optimizer", "schedule", "trainer")
NOTES = """\
Evaluates on one device with the run's own task, precision and number of threads. On the machine of the training, the
test metrics equal those of result.json to the last bit. Callbacks of the config do not run, and no file is written.

Other images of the same classes need only a folder test/<class>/ or <class>/. Classes are matched by name; some may be
absent.

examples:
  litlab evaluate outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c
  litlab evaluate DIR --split val --checkpoint last --json
  litlab evaluate DIR --set data.root=/datasets/cifar10
  litlab evaluate DIR --set data.root=photos_of_another_camera
  litlab evaluate /tmp/from_a_colleague --allow their_package
"""


def main(arguments: list[str]) -> None:
    """Evaluate a checkpoint and print its metrics.

    Raises:
        UserError: If the run, its data or the command line is invalid.
    """
    options = make_parser().parse_args(arguments)
    finished = FinishedRun.open(options.run, options.allow, GROUPS)
    checkpoint = finished.find_checkpoint(options.checkpoint)
    locations = _parse_locations(options.set, finished.config["data"])
    recorded = finished.dataset_info() if finished.run.dataset.exists() else None
    if options.split == "val" and recorded is not None and recorded.num_val == 0 and not locations:
        raise UserError(f"--split val: {finished.run.path} has no validation images (data.val_size)")
    _prepare_process(finished.config["threads"])
    with redirect_stdout(sys.stderr):  # libraries and tasks may print: standard output is for the metrics
        config = finished.select_settings(*GROUPS)
        if locations:
            config["data"] |= locations
        from litlab.inference.evaluate import evaluate

        measured = evaluate(finished, config, checkpoint, split=options.split, device=options.device)
    report = {"run": str(finished.run.path), "checkpoint": checkpoint.stem, "split": options.split} | measured
    print(json.dumps(nonfinite_to_none(report), indent=2, ensure_ascii=False) if options.json else _table(report))


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("evaluate", "Compute the metrics of a run's checkpoint on a split of its data.", NOTES)
    add_run(parser)
    add_allow(parser)
    parser.add_argument("--split", choices=("test", "val"), default="test", help="default: test")
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="default: the run's own kind of device if available, else cpu",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=PATH",
        help=f"the present location of the data: {', '.join(SETTABLE_KEYS)}",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _parse_locations(settings: list[str], data: dict[str, Any] | None) -> dict[str, str]:
    """Parse the options `--set` to arguments of the data module, whose node is `data`; None without one."""
    locations = {}
    for setting in settings:
        key, equals, path = setting.partition("=")
        if key not in SETTABLE_KEYS or not equals:
            raise UserError(f"--set {setting}: expected KEY=PATH with a key of {' or '.join(SETTABLE_KEYS)}")
        if data is None:
            raise UserError(f"--set {setting}: this run has no data module, but a task with loaders of its own")
        name = key.removeprefix("data.")
        if name not in data:
            raise UserError(f"--set {setting}: {data['_target_']}, the data of this run, has no {name!r}")
        locations[name] = path
    return locations


def _prepare_process(threads: int | None) -> None:
    """Set the environment as a worker does: number of threads, no rank variables of another launcher."""
    if threads is not None:
        os.environ |= thread_variables(threads)
    for name in list(os.environ):
        if is_rank_variable(name):
            del os.environ[name]


def _table(report: dict[str, Any]) -> str:
    width = max(map(len, report["metrics"]), default=0)
    head = f"{Path(report['run'])}  {report['checkpoint']} checkpoint, {report['split']} split, {report['device']}"
    return "\n".join([head, *(f"  {name:<{width}}  {value:.6f}" for name, value in report["metrics"].items())])
