"""`litlab diff`: what differs between two runs."""

import difflib
from typing import Any

from litlab.cli.arguments import new_parser
from litlab.config.tree import check_plain
from litlab.errors import UserError
from litlab.runs.diff import diff_runs, format_diff
from litlab.runs.directory import RunDirectory
from litlab.runs.state import RunStatus, read_state
from litlab.runs.terminal import format_duration, headline, printable

MOST_LINES = 40  # of a section
MOST_CODE = 60  # lines of code that changed
_LONGEST = 200  # characters of such a line
_COMPARED = 5000  # lines of each text: the time to compare grows with their square
NOTES = """\
It compares config, code, packages, hardware, data, results and every row of metrics.csv except throughput/*, and shows
A -> B. Of code it knows the commit, and the uncommitted changes and untracked sources that provenance.json recorded:
where those differ, their difference is shown. The runs may be running, failed, or somebody else's: files are only read.

Exit code: 0 whether or not they differ; 1 if one of them can't be read.

examples:
  litlab diff outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c outputs/cifar10_cnn/2026-02-01_09-30-00_4d5e6f
  litlab diff outputs/lr_by_seed/0000_* outputs/lr_by_seed/0003_*
"""


def main(arguments: list[str]) -> None:
    """Print a line for each difference.

    Raises:
        UserError: if one of the two is no run.
    """
    parser = new_parser("diff", "What differs between two runs: config, code, packages, hardware, results.", NOTES)
    parser.add_argument("old", metavar="A", help="a run directory, or a job of a study: outputs/STUDY/JOB")
    parser.add_argument("new", metavar="B", help="another")
    options = parser.parse_args(arguments)
    old, new = _open(options.old), _open(options.new)
    lines = [f"A  {_described(old)}", f"B  {_described(new)}", ""]
    lines += format_diff(diff_runs(old, new, strict=False), MOST_LINES)
    print("\n".join(map(printable, [*lines, *_code(old, new)])), flush=True)


def _open(path: str) -> RunDirectory:
    """
    Raises:
        UserError: if there is no run, or its config is none.
    """
    run = RunDirectory.existing(path)
    try:
        check_plain(run.read_config())
    except UserError as error:
        raise error if str(run.config) in str(error) else UserError(f"{run.config}: {error}") from error
    return run


def _described(run: RunDirectory) -> str:
    state = read_state(run)
    taken = (
        f" in {format_duration(state.seconds)}"
        if state.status == RunStatus.COMPLETED and state.seconds is not None
        else ""
    )
    said = f"{state.status.label}{taken}{': ' * bool(state.message)}{headline(state.message)}"
    return f"{run.path}  {said}"


def _code(old: RunDirectory, new: RunDirectory) -> list[str]:
    """How the uncommitted changes and the untracked sources differ, where they are recorded."""
    before, after = _texts(old), _texts(new)
    if not (before and after):
        return []
    lines: list[str] = []
    for name in {**before, **after}:
        old_lines, new_lines = (each.get(name, "").splitlines()[:_COMPARED] for each in (before, after))
        lines += difflib.unified_diff(old_lines, new_lines, f"A {name}", f"B {name}", n=1, lineterm="")
    more = len(lines) - MOST_CODE
    shown = [f"  {line.expandtabs()[:_LONGEST]}" for line in lines[:MOST_CODE]]
    return [*([""] if lines else []), *shown, *([f"  and {more} more lines"] if more > 0 else [])]


def _texts(run: RunDirectory) -> dict[str, str]:
    """Name -> text of what provenance.json holds of code; nothing where it has no record of any."""
    try:
        provenance: Any = run.read_json(run.provenance)
    except UserError:  # it is said in the section of the code
        return {}
    code = provenance.get("code") if isinstance(provenance, dict) else None
    if not isinstance(code, dict):
        return {}
    untracked = code.get("untracked")
    texts = {"uncommitted changes": code.get("diff"), **(untracked if isinstance(untracked, dict) else {})}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
