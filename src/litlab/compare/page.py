"""A comparison as one HTML page that needs nothing else: no network, no other file."""

import base64
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litlab.compare.environment import MOST_RUNS, environment_of
from litlab.compare.model import Comparison
from litlab.compare.page_figures import figure_parts
from litlab.compare.page_parts import group_parts, unfinished_part
from litlab.compare.page_table import Drawn, page_table
from litlab.compare.table import test_metric
from litlab.compare.wording import answer, extent, on_one_line, question
from litlab.errors import UserError
from litlab.runs.files import write_text

if TYPE_CHECKING:
    from markupsafe import Markup

MOST_SKIPPED = 200  # directories that are named
_HERE = Path(__file__).parent


def write_page(comparison: Comparison, file: Path) -> None:
    """Write the page, whole or not at all.

    Raises:
        UserError: if the file can't be written.
    """
    if file.is_dir():
        raise UserError(f"{file} is a directory; name a file: {file / 'comparison.html'}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_text(file, to_html(comparison))
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}") from error


def to_html(comparison: Comparison) -> str:
    """The whole page. What comes from files is escaped, and no script but the page's own may run."""
    from importlib.metadata import version

    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    script = (_HERE / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_HERE / "page.html.jinja").read_text(encoding="utf-8"))
    # The styles that matplotlib gives to lines stand in attributes, which can't be listed by their digests.
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    return template.render(
        **_content(comparison),
        interval=_interval,
        policy=f"{policy}; base-uri 'none'; form-action 'none'",
        script=Markup(script),
        style=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        version=version("litlab"),
    )


def _content(comparison: Comparison) -> dict[str, Any]:
    runs = [run for group in comparison.groups for run in group.runs]
    environment = environment_of(runs)
    return {
        "question": question(comparison),
        "answer": answer(comparison),
        "extent": extent(comparison, environment.dates),
        "directories": [on_one_line(str(directory)) for directory in comparison.directories],
        "metric": on_one_line(comparison.metric),
        "tested": on_one_line(test_metric(comparison.metric)),
        "table": page_table(comparison),
        "has_ties": len(comparison.ties) > 1,
        "notes": [on_one_line(note) for note in comparison.notes],
        "figures": figure_parts(comparison),
        "groups": group_parts(comparison),
        "num_groups": len(comparison.groups),
        "num_runs": len(runs),
        "unfinished": unfinished_part(comparison),
        "skipped": [(on_one_line(str(each.path)), on_one_line(each.why)) for each in comparison.skipped[:MOST_SKIPPED]],
        "num_skipped_left_out": max(len(comparison.skipped) - MOST_SKIPPED, 0),
        "environment": environment,
        "most_read": MOST_RUNS,
    }


def _interval(drawn: Drawn | None, limit: float | None) -> "Markup":
    """A point with its interval on the scale that all rows share; what it shows stands in words beside it."""
    from markupsafe import Markup

    if drawn is None:
        return Markup("")
    parts = []
    if limit is not None:
        parts.append(f'<line class="guide" x1="{limit}%" x2="{limit}%" y1="0" y2="100%"/>')
    if drawn.low is not None and drawn.high is not None:
        parts.append(f'<line x1="{drawn.low}%" x2="{drawn.high}%" y1="50%" y2="50%"/>')
    parts.append(f'<circle cx="{drawn.mean}%" cy="50%" r="3"/>')
    return Markup(f'<svg class="interval" aria-hidden="true">{"".join(parts)}</svg>')  # numbers alone
