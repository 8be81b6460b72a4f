"""Show what differs between two runs."""

import difflib
from argparse import ArgumentParser

from litlab.cli.arguments import new_parser
from litlab.config.tree import check_plain
from litlab.errors import UserError
from litlab.runs.diff import diff_runs, format_diff
from litlab.runs.directory import RunDirectory
from litlab.runs.files import as_mapping
from litlab.runs.state import RunStatus, read_state
from litlab.runs.terminal import format_duration, headline, printable

MAX_LINES = 40  # of a section
MAX_CODE_LINES = 60
_MAX_LINE_LENGTH = 200  # characters of a line of code
_MAX_COMPARED = 5000  # lines of each text: the time to compare grows with their square
NOTES = """\
Compares config, code, packages, hardware, data, results and every row of metrics.csv except throughput/*, and shows
A -> B. Code is compared by the commit, the uncommitted changes and the untracked sources in provenance.json. The runs
may be running, failed, or untrusted: their files are only read.

Exit code: 0 whether or not they differ, 1 if one of them can't be read.

examples:
  litlab diff outputs/cifar10_cnn/2026-01-31_12-00-00_1a2b3c outputs/cifar10_cnn/2026-02-01_09-30-00_4d5e6f
  litlab diff outputs/lr_by_seed/0000_* outputs/lr_by_seed/0003_*
"""


def main(arguments: list[str]) -> None:
    """Print a line for each difference.

    Raises:
        UserError: If one of the two is not a readable run.
    """
    options = make_parser().parse_args(arguments)
    old, new = _open(options.old), _open(options.new)
    lines = [f"A  {_describe(old)}", f"B  {_describe(new)}", ""]
    lines += format_diff(diff_runs(old, new, strict=False), MAX_LINES)
    print("\n".join(map(printable, [*lines, *_code_diff(old, new)])), flush=True)


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("diff", "Show what differs between two runs: config, code, packages, hardware, results.", NOTES)
    parser.add_argument("old", metavar="A", help="a run directory, or a job of a study: outputs/STUDY/JOB")
    parser.add_argument("new", metavar="B", help="another run directory")
    return parser


def _open(path: str) -> RunDirectory:
    """Open a run that has a valid config."""
    run = RunDirectory.existing(path)
    try:
        check_plain(run.read_config())
    except UserError as error:
        raise error if str(run.config) in str(error) else UserError(f"{run.config}: {error}") from error
    return run


def _describe(run: RunDirectory) -> str:
    state = read_state(run)
    is_timed = state.status == RunStatus.COMPLETED and state.seconds is not None
    duration = f" in {format_duration(state.seconds or 0)}" if is_timed else ""
    return f"{run.path}  {state.status.label}{duration}{': ' * bool(state.message)}{headline(state.message)}"


def _code_diff(old: RunDirectory, new: RunDirectory) -> list[str]:
    """Compare the recorded uncommitted changes and untracked sources."""
    before, after = _recorded_code(old), _recorded_code(new)
    if not (before and after):
        return []
    lines: list[str] = []
    for name in {**before, **after}:
        old_lines, new_lines = (texts.get(name, "").splitlines()[:_MAX_COMPARED] for texts in (before, after))
        lines += difflib.unified_diff(old_lines, new_lines, f"A {name}", f"B {name}", n=1, lineterm="")
    num_hidden = len(lines) - MAX_CODE_LINES
    shown = [f"  {line.expandtabs()[:_MAX_LINE_LENGTH]}" for line in lines[:MAX_CODE_LINES]]
    return [*([""] if lines else []), *shown, *([f"  and {num_hidden} more lines"] if num_hidden > 0 else [])]


def _recorded_code(run: RunDirectory) -> dict[str, str]:
    """Read name -> text of the code in provenance.json; empty if nothing is recorded."""
    try:
        code = as_mapping(run.read_mapping(run.provenance).get("code"))
    except UserError:  # reported in the section of the code
        return {}
    texts = {"uncommitted changes": code.get("diff"), **as_mapping(code.get("untracked"))}
    return {name: text for name, text in texts.items() if isinstance(text, str)}
