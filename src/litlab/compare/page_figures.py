"""The figures of a comparison as elements of its page."""

import base64
import io
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litlab.compare.model import Comparison

if TYPE_CHECKING:
    from markupsafe import Markup
    from matplotlib.figure import Figure

LARGEST_SVG = 600_000  # characters; a figure with more than that to draw is a picture of pixels
RESOLUTION = 150  # of these pixels, an inch
_UNUSED = re.compile(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)  # the page has the style
_NAME = re.compile(r'(\bid="|href="#|url\(#)')


@dataclass(frozen=True)
class FigurePart:
    image: "Markup"
    caption: str


def figure_parts(comparison: Comparison) -> list[FigurePart]:
    """All figures that make sense for the comparison, as they are drawn for papers."""
    from litlab.compare.plots import figures

    found = figures(comparison)
    captions = [said[:1].upper() + said[1:] for said in (str(figure.get_label()) for figure in found.values())]
    return [
        FigurePart(_image(figure, caption, f"f{number}-"), caption)
        for number, (figure, caption) in enumerate(zip(found.values(), captions, strict=True))
    ]


def _image(figure: "Figure", caption: str, prefix: str) -> "Markup":
    """An element for the page; the names within it get a prefix, since those of all figures stand in one page."""
    from markupsafe import Markup, escape

    from litlab.compare.plots import svg

    text = _UNUSED.sub("", svg(figure))
    if len(text) > LARGEST_SVG:
        return _pixels(figure, caption)
    head, _, rest = _NAME.sub(rf"\g<1>{prefix}", text).partition(">")
    return Markup(f'{head} role="img" aria-label="{escape(caption)}"><title>{escape(caption)}</title>{rest}')


def _pixels(figure: "Figure", caption: str) -> "Markup":
    from markupsafe import Markup, escape

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=RESOLUTION)
    data = base64.b64encode(content.getvalue()).decode()
    return Markup(f'<img src="data:image/png;base64,{data}" alt="{escape(caption)}">')
