"""The command `litlab`: sub-commands, imported when they are called."""

import importlib
import os
import sys
from io import TextIOWrapper
from types import ModuleType

from litlab.errors import RunFailed, UserError

USAGE = """\
litlab: compose, run and compare PyTorch Lightning experiments

  litlab train [group=option] [key=value]         train, then test the best checkpoint (--help: groups and keys)
  litlab train -m [key=value,value]               a study: a job for each combination (--dry-run: say which)
  litlab resume DIR [key=value]                   continue an interrupted run or study in place
  litlab rerun DIR                                run it again and compare
  litlab status DIR [--watch]                     the jobs of a study: done, running, failed and why
  litlab compare DIR... [--baseline NAME]         which setting is better, by how much, or is it noise
  litlab diff RUN RUN                             what differs between two runs: config, code, packages, results
  litlab evaluate DIR                             test metrics of a run's checkpoint, once more
  litlab predict DIR --images PATH                class and probability for images
  litlab export DIR --format onnx                 the trained network as a file for other programs
  litlab tensorboard [DIR]                        TensorBoard on outputs/ or one directory

Each has its own --help. In Python: litlab.load(DIR) gives the trained network with its preprocessing.
"""
COMMANDS = {
    "train": "litlab.cli.train",
    "resume": "litlab.cli.resume",
    "status": "litlab.cli.status",
    "rerun": "litlab.cli.rerun",
    "compare": "litlab.cli.compare",
    "diff": "litlab.cli.diff",
    "evaluate": "litlab.cli.evaluate",
    "predict": "litlab.cli.predict",
    "export": "litlab.cli.export",
    "tensorboard": "litlab.cli.tensorboard",
}


def main() -> None:
    """The console command; exits with 0, 1 for the user's error, 130 for Ctrl-C, or the worker's code."""
    try:
        _never_fail_to_print()
        _run(sys.argv[1:])
    except UserError as error:
        sys.exit(_said(str(error)))
    except RunFailed as error:
        sys.exit(error.exit_code)
    except BrokenPipeError:  # `litlab train --help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("litlab: interrupted", file=sys.stderr)
        sys.exit(130)


def _never_fail_to_print() -> None:
    """What an encoding such as ASCII does not have, is written `\\xb1`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower().replace("-", "") != "utf8":
            stream.reconfigure(errors="backslashreplace")


def _run(arguments: list[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="", flush=True)
    elif arguments[0] == "--version":
        from importlib.metadata import version

        print(f"litlab {version('litlab')}", flush=True)
    else:
        _command(arguments[0]).main(arguments[1:])


def _command(name: str) -> ModuleType:
    if name not in COMMANDS:
        from difflib import get_close_matches

        nearest = get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {nearest[0]}?" if nearest else f"known: {', '.join(COMMANDS)}"
        raise UserError(f"{name}: no such command; {hint}")
    return importlib.import_module(COMMANDS[name])


def _said(message: str) -> int:
    lines = message.splitlines()
    print("\n".join(["litlab: " + lines[0], *("        " + line for line in lines[1:])]), file=sys.stderr)
    return 1
