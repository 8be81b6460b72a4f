"""Dispatch of the command `litlab` to its subcommands, which are imported when they are called."""

import importlib
import os
import sys
from io import TextIOWrapper
from types import ModuleType

from litlab.errors import RunFailed, UserError

USAGE = """\
litlab: compose, run and compare PyTorch Lightning experiments

  litlab train [group=option] [key=value]         train, then test the best checkpoint (--help lists groups and keys)
  litlab train -m [key=value,value]               run a study: a job for each combination (--dry-run lists them)
  litlab resume DIR [key=value]                   continue an interrupted run or study in place
  litlab rerun DIR                                run it again and compare the results
  litlab status DIR [--watch]                     show the jobs of a study: completed, running, failed and why
  litlab compare DIR... [--baseline NAME]         compare settings over seeds, with intervals and p-values
  litlab diff RUN RUN                             show what differs between two runs
  litlab evaluate DIR                             compute the test metrics of a checkpoint again
  litlab predict DIR --images PATH                print classes and probabilities of images
  litlab export DIR --format onnx                 write the trained network for other programs
  litlab tensorboard [DIR]                        start TensorBoard on outputs/ or one directory
  litlab new PATH                                 make a project of your own: network, data, task, tests

Each command has its own --help. In Python, litlab.train([...]) and litlab.results(DIR) return results, and
litlab.load(DIR) the trained network with its preprocessing.
"""
# Names of the modules, too.
COMMANDS = (
    "train", "resume", "status", "rerun", "compare", "diff", "evaluate", "predict", "export", "tensorboard", "new",
)  # fmt: skip


def main() -> None:
    """Run the command line.

    Exit codes: 0 for success, 1 for a user error, 75 for a run or study in use, 130 for Ctrl-C, else the worker's.
    """
    try:
        if sys.platform == "win32":  # which has no fcntl, fork and POSIX signals
            raise UserError("needs Linux or macOS; on Windows, run it in WSL 2")
        _escape_unprintable()
        _dispatch(sys.argv[1:])
    except UserError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    except RunFailed as error:
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `litlab train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("litlab: interrupted", file=sys.stderr)
        sys.exit(130)


def _escape_unprintable() -> None:
    """Write characters that an encoding such as ASCII lacks as backslash escapes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def _dispatch(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="", flush=True)
    elif arguments[0] == "--version":
        from importlib.metadata import version

        print(f"litlab {version('litlab')}", flush=True)
    else:
        _import_command(arguments[0]).main(arguments[1:])


def _import_command(name: str) -> ModuleType:
    if name not in COMMANDS:
        from difflib import get_close_matches

        nearest = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(COMMANDS)}"
        raise UserError(f"{name}: unknown command; {hint}")
    return importlib.import_module(f"litlab.cli.{name}")


def _print_error(message: str) -> None:
    lines = message.splitlines()
    print("\n".join(["litlab: " + lines[0], *("        " + line for line in lines[1:])]), file=sys.stderr)
