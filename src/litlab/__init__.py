"""litlab: a PyTorch Lightning research experiment framework."""

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litlab.inference.predictor import Predictor


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
