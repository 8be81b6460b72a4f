"""Arguments that several commands share."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from litlab.runs.directory import CHECKPOINTS


def new_parser(command: str, description: str, notes: str) -> ArgumentParser:
    """Create the parser of `litlab COMMAND`, with `notes` printed verbatim below its options."""
    return ArgumentParser(
        prog=f"litlab {command}", description=description, epilog=notes, formatter_class=RawDescriptionHelpFormatter
    )


def insert_override(override: str, arguments: list[str]) -> list[str]:
    """Insert an override of Hydra before the first one: argparse wants all positionals in one block."""
    is_override = (argument[:1] == "~" or ("=" in argument and not argument.startswith("-")) for argument in arguments)
    first = next((i for i, match in enumerate(is_override) if match), len(arguments))
    return [*arguments[:first], override, *arguments[first:]]


def add_run(parser: ArgumentParser) -> None:
    """Add DIR and --checkpoint."""
    parser.add_argument("run", metavar="DIR", help="a run directory: outputs/<experiment>/<date>_<time>_<id>")
    parser.add_argument(
        "--checkpoint",
        choices=CHECKPOINTS,
        help="default: best if the run has one, else last, as in the final test",
    )


def add_allow(parser: ArgumentParser) -> None:
    """Add --allow for untrusted runs."""
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="NAME",
        help="a class or package that an untrusted run may use besides those of litlab's own configs; repeatable",
    )
