"""Repeat a run and report whether its result is identical."""

import os
import secrets
import sys
from argparse import ArgumentParser
from datetime import datetime
from pathlib import Path
from typing import Any

from litlab.cli.arguments import add_allow, new_parser
from litlab.config.config_file import to_yaml
from litlab.config.trust import ALLOW
from litlab.errors import UserError
from litlab.inference.finished_run import FinishedRun
from litlab.process.controller import run_worker
from litlab.runs.diff import RunDiff, diff_runs, format_diff
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping, hard_link, write_json
from litlab.runs.provenance import describe_launch
from litlab.runs.signature import sign
from litlab.runs.state import RunStatus
from litlab.runs.terminal import display_path, format_value

MAX_LINES = 12  # of a section
HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")
NOTES = """\
Trains from the frozen config.yaml in a new directory beside the run, with the present code and packages. Then reports
whether the result is identical to the last bit: weights, every row of metrics.csv except throughput/*, and the metrics
of result.json. Lists the differences in config, code, packages, hardware and data, and the distance of the metrics. To
rerun with the original code, check out the commit named in provenance.json first.

Exit code: 0 if the result is identical, 1 if it is not or if the run could not be repeated.

examples:
  litlab rerun outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c
  litlab rerun DIR --allow timm         an untrusted run with a network of timm
"""


def main(arguments: list[str]) -> None:
    """Repeat a run and print the differences; exit with 1 unless the result is identical.

    Raises:
        UserError: If the run is not completed or can't be repeated here.
        RunFailed: If the worker did not complete.
    """
    options = make_parser().parse_args(arguments)
    finished = FinishedRun.open(options.run, allow=options.allow)
    old = finished.run
    _require_complete(old)
    os.environ[ALLOW] = ",".join(finished.trust.allowed)  # for the worker
    new = _create_run(finished, ["litlab", "rerun", *arguments])
    print(f"litlab: repeating {old.path} as {new.path}", flush=True)
    run_worker(new, finished.config, keep=False)
    diff = diff_runs(old, new)
    print("\n".join([*_verdict(diff), *format_diff(diff, MAX_LINES), *_remarks(diff, old)]))
    if not diff.identical:
        sys.exit(1)


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("rerun", "Repeat a run and report whether the result is identical.", NOTES)
    parser.add_argument("run", metavar="DIR", help="a run directory: outputs/<experiment>/<date>_<time>_<id>")
    add_allow(parser)
    return parser


def _require_complete(run: RunDirectory) -> None:
    if not run.result.exists():
        reason = "it has no result.json: it is running, or was killed"
    else:
        result = as_mapping(run.read_json(run.result))
        status, error = result.get("status"), result.get("error")
        if status == RunStatus.COMPLETED:
            return
        if status == RunStatus.DIVERGED:
            raise UserError(f"{run.path} diverged ({format_value(error)}); only completed runs are repeated")
        reason = f"status {format_value(status)}: {format_value(error)}"
    raise UserError(
        f"{run.path} is not completed ({reason}), so there is no result to compare with; "
        f"complete it first: litlab resume {run.path}"
    )


def _create_run(finished: FinishedRun, command: list[str]) -> RunDirectory:
    """Create a run directory beside the old one, with the same frozen config and new provenance."""
    old = finished.run
    path = display_path(old.path.resolve().parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}")
    project = old.project() if finished.own else Path.cwd()
    try:
        new = RunDirectory.create(path, to_yaml(finished.config), _hydra_files(old))
        if finished.config.get("init_from"):
            hard_link(old.initial_weights, new.initial_weights)
        origin = {"rerun_of": str(old.path.resolve())}
        write_json(new.provenance, describe_launch(project, command) | origin)
        if finished.own:
            sign(new)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; a run is repeated in a directory beside it: "
            "copy it to a writable place and rerun the copy"
        ) from error
    return new


def _hydra_files(run: RunDirectory) -> dict[str, str]:
    """Read the files of the old `.hydra/`, but no links: an untrusted run could point at any file."""
    files = [run.path / ".hydra" / name for name in HYDRA_FILES]
    regular = [file for file in files if file.is_file() and not any(path.is_symlink() for path in (file, file.parent))]
    return {file.name: file.read_text(encoding="utf-8", errors="replace") for file in regular}


def _verdict(diff: RunDiff) -> list[str]:
    results = [difference.name for difference in diff.differences if difference.section == "result"]
    rows = [difference.name for difference in diff.differences if difference.section == "metrics"]
    same = f"{diff.num_rows} metric rows and the results"
    if results or rows:
        counts = [f"{len(results)} values of result.json"] * bool(results) + [f"{len(rows)} metrics"] * bool(rows)
        verdict = f"NOT IDENTICAL: {' and '.join(counts)} differ"
    elif diff.identical:
        verdict = f"IDENTICAL to the last bit: the weights, {same}"
    else:
        verdict = f"NOT KNOWN to be identical: {same} are, the weights: {diff.unknown['weights']}"
    return ["", verdict, ""]


def _remarks(diff: RunDiff, old: RunDirectory) -> list[str]:
    """List what may explain the differences."""
    resumed = old.read_mapping(old.provenance).get("resumed")
    remarks = [_describe_resume(entry) for entry in resumed] if isinstance(resumed, list) else []
    if not diff.identical and diff.same_recipe:
        remarks.append(
            "All recorded inputs are the same. Files other than sources and the code of packages installed from a "
            "folder are not recorded.\nOn a GPU, runs are repeatable only with trainer.deterministic=true."
        )
    return ["", *remarks] if remarks else []


def _describe_resume(entry: Any) -> str:
    """Describe one resume of the original, which the rerun doesn't repeat."""
    entry = as_mapping(entry)
    changes = as_mapping(entry.get("changed")).items()
    pairs = [(key, *pair) for key, pair in changes if isinstance(pair, list) and len(pair) == 2]
    changed = ", ".join(
        f"{format_value(key)} {format_value(before)} -> {format_value(after)}" for key, before, after in pairs
    )
    details = f" with {changed}; the rerun had the new values from the start" if changed else ""
    return f"The original was resumed on {format_value(entry.get('when'))}{details}."
