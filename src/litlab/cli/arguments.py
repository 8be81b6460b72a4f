"""What is done with a finished run: one module for each sub-command, and what their command lines share. No torch."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from litlab.runs.directory import CHECKPOINTS


def new_parser(command: str, description: str, notes: str) -> ArgumentParser:
    """A parser for `litlab COMMAND`; `notes` stand below its options as they are."""
    return ArgumentParser(
        prog=f"litlab {command}", description=description, epilog=notes, formatter_class=RawDescriptionHelpFormatter
    )


def add_run(parser: ArgumentParser) -> None:
    """DIR, and which of its checkpoints."""
    parser.add_argument("run", metavar="DIR", help="a run directory: outputs/<experiment>/<date>_<time>_<id>")
    parser.add_argument(
        "--checkpoint",
        choices=CHECKPOINTS,
        help="default: the best where there is one, else the last, as in the final test",
    )


def add_allow(parser: ArgumentParser) -> None:
    """--allow, for a run of somebody else's."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package whose code a run that is not yours may use, besides torch, Lightning and litlab; repeatable",
    )
