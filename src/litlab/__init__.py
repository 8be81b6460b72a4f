"""litlab: a PyTorch Lightning research experiment framework."""

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import TYPE_CHECKING

from litlab.errors import RunFailed, UserError

if TYPE_CHECKING:
    from litlab.api import Results
    from litlab.inference.predictor import Predictor

__all__ = ["RunFailed", "UserError", "load", "results", "train"]


def train(arguments: Sequence[str], project: "str | PathLike[str] | None" = None) -> "Results":
    """Run `litlab train` with these arguments, wait for its end, and return the results.

    Output appears where `print` writes. Ctrl-C, or the button that interrupts a notebook, saves and stops; a second
    time, it stops at once.

    Args:
        arguments: Arguments of `litlab train`: `["experiment=quickstart", "seed=1"]`, `["-m", "seed=0,1"]`.
        project: Folder with the project's `conf/`, as the working directory of the command; None for the present one.

    Returns:
        Results of the run, or of all runs of the study; none after `--dry-run` and the like.

    Raises:
        UserError: With the message of the command, if a config or file is wrong.
        RunFailed: If a run did not complete.
        KeyboardInterrupt: If it was interrupted; `litlab resume` continues it.
    """
    from litlab import api

    return api.train(arguments, project)


def results(*directories: "str | PathLike[str]") -> "Results":
    """Read the results of runs and studies.

    Args:
        *directories: Run directories, studies, or folders of them.

    Raises:
        UserError: If there is no run in them.
    """
    from litlab import api

    return api.results(*directories)


def load(directory: "str | PathLike[str]", checkpoint: str | None = None, allow: Iterable[str] = ()) -> "Predictor":
    """Load the trained network of a run, with its preprocessing and class names.

    Args:
        directory: Run directory, `outputs/<experiment>/<date>_<time>_<id>`. No data set is needed.
        checkpoint: "best" or "last"; None for the best if there is one, else the last, as in the final test.
        allow: Classes and packages that an untrusted run may use (docs/SECURITY.md).

    Raises:
        UserError: If there is no such run or checkpoint, a file is damaged, a class can't be imported, the run has no
            network on one of litlab's data sets, or it is untrusted and names what is not allowed.
    """
    from litlab.inference import predictor  # imports torch

    return predictor.load(directory, checkpoint, allow)
