"""Figures as files: png, svg, pdf; the same figure gives the same bytes."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.compare.output_files import check_output, figure_kind
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
    """Write figures; the ending says as what.

    Several become the pages of one pdf; of png and svg a file each: `FILE-NAME.png`.

    Returns:
        what was written.

    Raises:
        UserError: if the ending is none of png, svg, pdf, there is no figure, or a file can't be written or may not be
            replaced.
    """
    kind = figure_kind(file)
    if not figures:
        raise UserError(f"{file}: there is nothing to draw: no run that is done has a value of the metric")
    if kind == "pdf" or len(figures) == 1:
        check_output(file)
        _write(file, _pages(figures.values()) if kind == "pdf" else _drawn(next(iter(figures.values())), kind))
        return [file]
    targets = [file.with_name(f"{file.stem}-{name}{file.suffix}") for name in figures]
    for target in targets:
        check_output(target)
    for target, figure in zip(targets, figures.values(), strict=True):
        _write(target, _drawn(figure, kind))
    return targets


def svg(figure: "Figure") -> str:
    """A figure as an `<svg>` element, to be put into a page: texts are paths, nothing is loaded from elsewhere."""
    text = _drawn(figure, "svg").decode()
    return text[text.index("<svg") :]


def _drawn(figure: "Figure", kind: str) -> bytes:
    from litlab.compare.plots.style import styled

    content = io.BytesIO()
    with styled():
        figure.savefig(content, format=kind, dpi=RESOLUTION, metadata=_METADATA[kind])
    return content.getvalue()


def _pages(figures: "Iterable[Figure]") -> bytes:
    from matplotlib.backends.backend_pdf import PdfPages

    from litlab.compare.plots.style import styled

    content = io.BytesIO()
    with styled(), PdfPages(content, metadata=_METADATA["pdf"]) as pages:
        for figure in figures:
            pages.savefig(figure)
    return content.getvalue()


def _write(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, lambda opened: opened.write(content))
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}") from error
