"""litlab: a PyTorch Lightning research experiment framework."""

from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from litlab.inference.predictor import Predictor


def load(directory: "str | PathLike[str]", checkpoint: str | None = None, allow: Iterable[str] = ()) -> "Predictor":
    """The trained network of a run, with its preprocessing and class names: a `litlab.inference.predictor.Predictor`.

    Args:
        directory: a run directory, `outputs/<experiment>/<date>_<time>_<id>`. No data set is needed.
        checkpoint: "best" or "last"; None for the best where there is one, else the last, as in the final test.
        allow: packages whose code a run that is not yours may use, beside torch's and litlab's. docs/SECURITY.md

    Raises:
        UserError: if there is no such run or checkpoint, if a file is damaged or a class can't be imported, if the run
            is not of a network on one of litlab's data sets, or if it is not yours and names what is not allowed.
    """
    from litlab.inference import predictor  # imports torch

    return predictor.load(directory, checkpoint, allow)
