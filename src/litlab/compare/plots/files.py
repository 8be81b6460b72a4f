"""Figure files: png, svg and pdf; the same figure gives the same bytes."""

import io
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from litlab.compare.output_files import check_output, figure_format
from litlab.errors import UserError
from litlab.runs.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLUTION = 200  # pixels an inch, of png
_METADATA: dict[str, dict[str, Any]] = {  # without the date and the version of matplotlib
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def save(figures: Mapping[str, "Figure"], file: Path) -> list[Path]:
    """Write figures in the format that the suffix names.

    Several figures become the pages of one pdf, or a png or svg each: `FILE-NAME.png`.

    Returns:
        Written files.

    Raises:
        UserError: If the suffix is not png, svg or pdf, if there is no figure, or if a file cannot be written or may
            not be replaced.
    """
    suffix = figure_format(file)
    if not figures:
        raise UserError(f"{file}: there is nothing to draw: no completed run has a value of the metric")
    if suffix == "pdf":
        contents = {file: _pdf(figures)}
    elif len(figures) == 1:
        contents = {file: _encode(next(iter(figures.values())), suffix)}
    else:
        contents = {
            file.with_name(f"{file.stem}-{name}{file.suffix}"): _encode(figure, suffix)
            for name, figure in figures.items()
        }
    for target in contents:
        check_output(target)
    for target, content in contents.items():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, partial(_write, content))
        except OSError as error:
            raise UserError(f"{target} can't be written: {error.strerror}") from error
    return list(contents)


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def svg(figure: "Figure") -> str:
    """Return a figure as an `<svg>` element for a page: texts are paths, nothing is loaded from elsewhere."""
    text = _encode(figure, "svg").decode()
    return text[text.index("<svg") :]


def _encode(figure: "Figure", suffix: str) -> bytes:
    from litlab.compare.plots.style import styled

    content = io.BytesIO()
    with styled():
        figure.savefig(content, format=suffix, dpi=RESOLUTION, metadata=_METADATA[suffix])
    return content.getvalue()


def _pdf(figures: Mapping[str, "Figure"]) -> bytes:
    from matplotlib.backends.backend_pdf import PdfPages

    from litlab.compare.plots.style import styled

    content = io.BytesIO()
    with styled(), PdfPages(content, metadata=_METADATA["pdf"]) as pages:
        for figure in figures.values():
            pages.savefig(figure)
    return content.getvalue()
