"""Files that a comparison writes: never over a file of a run or a study, whole or not at all, always the same bytes."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.errors import UserError
from litlab.runs.files import write_atomic
from litlab.sweep.discover import is_run_or_study
from litlab.sweep.study import JOBS_FILE, STUDY_FILE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESOLUTION = 200  # pixels an inch, of png
FIGURE_METADATA: dict[str, dict[str, Any]] = {  # by format; without the date and the version of matplotlib
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}
_FILES = (
    STUDY_FILE, JOBS_FILE, "config.yaml", "dataset.json", "provenance.json", "metrics.csv", "metrics.json", "run.log",
    "result.json",
)  # fmt: skip
_OUTPUT_SUFFIXES = (".txt", ".md", ".csv", ".json", ".tex", ".html", *(f".{name}" for name in FIGURE_METADATA))
_MAX_DEPTH = 3  # folders below that of a run: summary/GROUP/


def check_outputs(texts: Sequence[Path], plots: Sequence[Path]) -> None:
    """Check all files before anything is computed.

    Raises:
        UserError: If a file cannot be written in its format, may not be replaced, or is named twice.
    """
    seen: set[str] = set()
    for file in (*texts, *plots):
        _check_output(file)
        if (real := os.path.realpath(file)) in seen:
            raise UserError(f"{file} is named twice; name another file for one of the two")
        seen.add(real)
    for file in plots:
        _figure_format(file)


def write_output(file: Path, content: str | bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: If it cannot be written.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, lambda opened: opened.write(data))
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def save_figures(figures: Mapping[str, "Figure"], file: Path) -> list[Path]:
    """Write figures in the format that the suffix names.

    Several figures become the pages of one pdf, or a png or svg each: `FILE-NAME.png`.

    Returns:
        Written files.

    Raises:
        UserError: If the suffix is not png, svg or pdf, if there is no figure, or if a file cannot be written or may
            not be replaced.
    """
    suffix = _figure_format(file)
    if not figures:
        raise UserError(f"{file}: there is nothing to draw: no completed run has a value of the metric")
    if suffix == "pdf":
        contents = {file: _pdf(figures)}
    else:
        several = len(figures) > 1
        contents = {
            file.with_name(f"{file.stem}-{name}{file.suffix}") if several else file: encode(figure, suffix)
            for name, figure in figures.items()
        }
    for target in contents:
        _check_output(target)
    for target, content in contents.items():
        write_output(target, content)
    return list(contents)


def svg(figure: "Figure") -> str:
    """Return a figure as an `<svg>` element for a page: texts are paths, nothing is loaded from elsewhere."""
    text = encode(figure, "svg").decode()
    return text[text.index("<svg") :]


def _check_output(file: Path) -> None:
    """Check that a file may be written; what it replaces may not be a link, a pipe or a device such as /dev/null.

    Missing folders are created, but not directly below the root: such a path is rather a mistake, as `/figures/x.png`
    for `figures/x.png`.
    """
    try:
        if file.is_dir():
            raise UserError(f"{file} is a directory; name a file in it")
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise UserError(f"{file} is a link, a pipe or a device, which would be replaced; name a regular file")
        top = Path(*file.parent.resolve().parts[:2])
        if not top.exists():
            raise UserError(f"{file}: there is no folder {top}; create it, or name a file in another folder")
        # Outputs of an earlier comparison in the folders of runs and studies may be replaced.
        is_output = file.name not in _FILES and (file.suffix in _OUTPUT_SUFFIXES or not file.exists())
        folders = Path(os.path.realpath(file)).parents[:_MAX_DEPTH]
        if not is_output and any(map(is_run_or_study, folders)):
            raise UserError(f"{file} is a file of a run or a study; choose another")
    except OSError as error:  # a name that is too long, a directory that may not be searched
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def _figure_format(file: Path) -> str:
    suffix = file.suffix.removeprefix(".").lower()
    if suffix not in FIGURE_METADATA:
        formats = ", ".join(FIGURE_METADATA)
        raise UserError(f"{file}: a figure can be written as {formats}; end its name in one of these")
    return suffix


def encode(figure: "Figure", suffix: str, resolution: int = RESOLUTION) -> bytes:
    """Return the bytes of a figure as a png or svg file."""
    from litlab.compare.plots.style import styled

    content = io.BytesIO()
    with styled(_texts(figure)):
        figure.savefig(content, format=suffix, dpi=resolution, metadata=FIGURE_METADATA[suffix])
    return content.getvalue()


def _texts(figure: "Figure") -> list[str]:
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text)]


def _pdf(figures: Mapping[str, "Figure"]) -> bytes:
    from matplotlib.backends.backend_pdf import PdfPages

    from litlab.compare.plots.style import styled

    content = io.BytesIO()
    texts = [text for figure in figures.values() for text in _texts(figure)]
    with styled(texts), PdfPages(content, metadata=FIGURE_METADATA["pdf"]) as pages:
        for figure in figures.values():
            pages.savefig(figure)
    return content.getvalue()
