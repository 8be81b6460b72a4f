"""Compare settings over seeds: means, intervals, differences from a baseline."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING

from litlab.cli.arguments import new_parser
from litlab.errors import UserError
from litlab.runs.terminal import printable

if TYPE_CHECKING:
    from litlab.compare.data_model import Comparison


FORMATS = ("table", "markdown", "csv", "json", "latex")
NOTES = """\
Runs whose configs differ only in the seed form a group; those of a k-fold in the fold, data.fold, the mean of whose
seeds counts as one value. Groups are ranked by the objective, a validation metric; the test metric is shown beside it
and never used for ranking. Runs that are not completed are counted, not averaged.

Differences are tested at a fixed number of seeds if that was planned (study.seeds, or the values of seed) and completed
before the first look, else by a sequential test, which is valid at every look; the caption says which. For that, each
look at a study of your own is recorded in its looks.jsonl.

  --metric     another validation metric: val/loss
  --mode       max or min: the direction of a metric whose class has none
  --at         the point of each run: best (of its objective), last, or epoch=N, counted from 1
  --filter     keep only runs with KEY OPERATOR VALUE, operators < <= > >= = !=; repeatable, all must hold.
               A key is a full name or its end: optimizer.lr, lr; or seed, fold. A class goes by its name: model=ResNet
  --group      group by these settings alone: optimizer.lr,model. All others are averaged for each seed, so that n,
               intervals and tests count seeds; a seed that some of them lack is left out
  --sort       a setting or a metric: lr, test/accuracy; or name, n, time, images/s, parameters
  --ablation   show the changes of an ablation (study.ablate), the most harmful first, as differences from the full
               recipe; other axes of the study are averaged for each seed
  --baseline   show differences from this group, paired by seed or fold if these match: its name or a part: lr=0.1

examples:
  litlab compare outputs/lr_by_seed
  litlab compare outputs/lr_by_seed --baseline lr=0.1
  litlab compare outputs/ablation --ablation --plot ablation.pdf
  litlab compare outputs/first outputs/second --filter 'optimizer.lr<0.1' --filter model=cnn
  litlab compare outputs/lr_by_seed --format latex --output table.tex
  litlab compare outputs/lr_by_seed --plot curves.pdf --html comparison.html
"""


def main(arguments: list[str]) -> None:
    """Print the table and write the requested files.

    Raises:
        UserError: If there is nothing to compare, an option doesn't fit the runs, or a file can't be written.
    """
    options = make_parser().parse_args(arguments)
    if options.ablation and (options.baseline is not None or options.group is not None):
        option = "--group" if options.baseline is None else "--baseline"
        raise UserError(f"--ablation: groups are the changes, and the full recipe is the baseline; leave {option} out")
    from litlab.compare.output_files import check_outputs

    check_outputs([file for file in (options.output, options.html) if file is not None], options.plot)
    from litlab.compare.comparison import compare
    from litlab.compare.looks import record_looks

    comparison = compare(
        options.directories,
        metric=options.metric,
        mode=options.mode,
        at=options.at,
        filters=options.filter,
        group=None if options.group is None else [key for key in options.group.split(",") if key],
        sort=options.sort,
        baseline=options.baseline,
        ablation=options.ablation,
    )
    comparison = replace(comparison, notes=(*comparison.notes, *record_looks(comparison)))
    _print_table(comparison, options)
    for line in _write_files(comparison, options):
        print(line, file=sys.stdout if options.format == "table" else sys.stderr, flush=True)


def make_parser() -> ArgumentParser:
    """Create the parser of the command line."""
    parser = new_parser("compare", "Compare settings over seeds, with intervals and p-values.", NOTES)
    add = parser.add_argument
    add("directories", metavar="DIR", nargs="+", type=Path, help="a study, a run, or a folder of them: outputs/NAME")
    add("--metric", help="default: the objective of the runs")
    add("--mode", choices=("max", "min"), help="default: that of the objective or of the metric's class")
    add("--at", default="best", metavar="best|last|epoch=N", help="default: best")
    add("--filter", action="append", default=[], metavar="CONDITION", help="'optimizer.lr<0.1'; repeatable")
    add("--group", metavar="KEYS", help="optimizer.lr,model")
    add("--sort", metavar="COLUMN", help="default: the metric, the best first")
    add("--baseline", metavar="NAME", help="a group: lr=0.1")
    add("--ablation", action="store_true", help="the changes of study.ablate against the full recipe")
    add("--format", choices=FORMATS, default="table", help="default: table")
    add("--output", metavar="FILE", type=Path, help="write the table to a file instead of printing it")
    add(
        "--plot",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="write figures as png, svg, pdf; repeatable",
    )
    add("--html", metavar="FILE", type=Path, help="write a self-contained page with everything")
    add("--tensorboard", action="store_true", help="write mean and interval of each group for TensorBoard")
    return parser


def _print_table(comparison: "Comparison", options: Namespace) -> None:
    """Print or write the table; print its notes on standard error if the format has no place for them."""
    from litlab.compare.formats import render
    from litlab.compare.output_files import write_output

    is_on_terminal = options.output is None and sys.stdout.isatty()
    text = render(comparison, options.format, get_terminal_size().columns if is_on_terminal else None)
    if options.output is None:
        print(text, end="", flush=True)
    else:
        write_output(options.output, text)
    if options.output is not None or options.format not in ("table", "markdown"):
        skipped = [f"skipped {entry.path}: {entry.reason}" for entry in comparison.skipped]
        for line in [*comparison.notes, *skipped]:
            print(printable(line), file=sys.stderr)


def _write_files(comparison: "Comparison", options: Namespace) -> Iterator[str]:
    """Write the requested files and yield a line for each."""
    if options.output is not None:
        yield f"table        {options.output}"
    if options.plot:
        from litlab.compare.output_files import save_figures
        from litlab.compare.plots import figures, missing_figures

        drawn = figures(comparison)
        for plot in options.plot:
            yield from (f"figure       {file}" for file in save_figures(drawn, plot))
        yield from (f"no figure    {sentence}" for sentence in missing_figures(comparison))
    if options.html is not None:
        from litlab.compare.html import to_html
        from litlab.compare.output_files import write_output

        write_output(options.html, to_html(comparison))
        yield f"page         {options.html}"
    if options.tensorboard:
        yield from _write_summaries(comparison)


def _write_summaries(comparison: "Comparison") -> Iterator[str]:
    from litlab.compare.collect import studies
    from litlab.compare.tensorboard_summary import write_summaries

    directories = studies(comparison.directories)
    if not directories:
        raise UserError(
            "--tensorboard: expected a study, which holds the summaries of its groups; these are single runs"
        )
    for study in directories:
        try:
            num_groups = write_summaries(study)
        except OSError as error:
            raise UserError(f"{study}/summary can't be written: {error.strerror}") from error
        except UserError as error:
            if len(directories) == 1:
                raise
            yield printable(f"TensorBoard  skipped {study}: {error}")
        else:
            summaries = f"summaries of {num_groups} group{'s' * (num_groups != 1)}"
            reason = ", as none has two finished runs" * (num_groups == 0)
            yield f"TensorBoard  litlab tensorboard {printable(str(study))}: {summaries}{reason}"
