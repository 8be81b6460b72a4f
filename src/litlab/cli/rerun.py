"""`litlab rerun`: a past run once more, and whether the same comes out."""

import os
import secrets
import sys
from argparse import Namespace
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
from litlab.runs.files import write_json
from litlab.runs.provenance import describe_launch
from litlab.runs.signature import sign
from litlab.runs.state import RunStatus
from litlab.runs.terminal import format_value

MOST_LINES = 12  # of a section
HYDRA_FILES = ("config.yaml", "hydra.yaml", "overrides.yaml")
NOTES = """\
Trains from the frozen config.yaml in a new directory beside the run, with the code and packages that are here now. Then
it says whether the result is identical: weights, every row of metrics.csv except throughput/*, and the metrics of
result.json, to the last bit. It lists what differs in config, code, packages, hardware and data, and how far apart
the metrics are. To rerun with the code of then, check out the commit that provenance.json names first.

Exit code: 0 if the result is identical, 1 if it is not, or if the run could not be repeated.

examples:
  litlab rerun outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c
  litlab rerun DIR --allow timm         somebody else's run, whose network is one of timm's
"""


def main(arguments: list[str]) -> None:
    """Rerun, and print what differs; exits with 1 unless the result is identical.

    Raises:
        UserError: if the run is not complete or can't be repeated here.
        RunFailed: if the worker did not complete.
    """
    options = _options(arguments)
    finished = FinishedRun.open(options.run, allow=options.allow)
    old = finished.run
    _require_complete(old)
    os.environ[ALLOW] = ",".join(finished.trust.allowed)  # for the worker
    new = _create(finished, ["litlab", "rerun", *arguments])
    print(f"litlab: {old.path} runs again as {new.path}", flush=True)
    run_worker(new, finished.config, keep=False)
    found = diff_runs(old, new)
    print("\n".join([*_verdict(found), *_differences(found), *_remarks(found, old)]))
    if not found.identical:
        sys.exit(1)


def _options(arguments: list[str]) -> Namespace:
    parser = new_parser("rerun", "Repeat a past run, and say whether the result is identical and what differs.", NOTES)
    parser.add_argument("run", metavar="DIR", help="a run directory: outputs/<experiment>/<date>_<time>_<id>")
    add_allow(parser)
    return parser.parse_args(arguments)


def _require_complete(run: RunDirectory) -> None:
    if not run.result.exists():
        how = "it has no result.json: it is still running, or was killed"
    else:
        result = run.read_json(run.result)
        status, error = (result.get(key) if isinstance(result, dict) else None for key in ("status", "error"))
        if status == RunStatus.COMPLETED:
            return
        how = f"it {format_value(status)}: {format_value(error)}"
    raise UserError(
        f"{run.path} is not complete ({how}), so there is nothing to compare with; "
        f"finish it first: litlab resume {run.path}"
    )


def _create(finished: FinishedRun, command: list[str]) -> RunDirectory:
    """A new run directory beside the old one, with the same frozen config and the provenance of now."""
    old = finished.run
    path = old.path.resolve().parent / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{secrets.token_hex(3)}"
    path = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
    project = old.project() if finished.own else Path.cwd()
    try:
        new = RunDirectory.create(path, to_yaml(finished.config), _hydra_files(old))
        origin = {"rerun_of": str(old.path.resolve())}
        write_json(new.provenance, describe_launch(project, command) | origin)
        if finished.own:
            sign(new)
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}; a run is repeated in a directory beside it: "
            "copy it to where you may write, and rerun the copy"
        ) from error
    return new


def _hydra_files(run: RunDirectory) -> dict[str, str]:
    """The old `.hydra/`; no links, which in somebody else's run could lead to any file of the user's."""
    files = [run.path / ".hydra" / name for name in HYDRA_FILES]
    regular = [file for file in files if file.is_file() and not any(each.is_symlink() for each in (file, file.parent))]
    return {file.name: file.read_text(encoding="utf-8", errors="replace") for file in regular}


def _verdict(found: RunDiff) -> list[str]:
    results = [each.name for each in found.differences if each.section == "result"]
    rows = [each.name for each in found.differences if each.section == "metrics"]
    same = f"{found.num_rows} metric rows and the results"
    if results or rows:
        counts = [f"{len(results)} values of result.json"] * bool(results) + [f"{len(rows)} metrics"] * bool(rows)
        said = f"NOT IDENTICAL: {' and '.join(counts)} differ"
    elif found.identical:
        said = f"IDENTICAL to the last bit: the weights, {same}"
    else:
        said = f"NOT KNOWN to be identical: {same} are, the weights: {found.unknown['weights']}"
    return ["", said, ""]


def _differences(found: RunDiff) -> list[str]:
    """A line for each difference and for each section without one, in columns."""
    return format_diff(found, MOST_LINES)


def _remarks(found: RunDiff, old: RunDirectory) -> list[str]:
    """What may explain the differences."""
    known = old.read_json(old.provenance) if old.provenance.exists() else {}
    resumed = known.get("resumed") if isinstance(known, dict) else None
    remarks = [_resumption(each) for each in resumed] if isinstance(resumed, list) else []
    if not found.identical and found.same_recipe:
        remarks.append(
            "What went in is the same, as far as it is recorded. Not recorded are files of other types than source, "
            "and the code of packages installed from a folder.\nOn a GPU, a run repeats itself with "
            "trainer.deterministic=true only."
        )
    return ["", *remarks] if remarks else []


def _resumption(entry: Any) -> str:
    """A line on one resumption of the original, which the rerun doesn't repeat."""
    entry = entry if isinstance(entry, dict) else {}
    changes = entry.get("changed") if isinstance(entry.get("changed"), dict) else {}
    pairs = [(key, *pair) for key, pair in changes.items() if isinstance(pair, list) and len(pair) == 2]
    changed = ", ".join(
        f"{format_value(key)} {format_value(before)} -> {format_value(after)}" for key, before, after in pairs
    )
    also = f" with {changed}; the rerun had the new values from the start" if changed else ""
    return f"The original was resumed on {format_value(entry.get('when'))}{also}."
