"""Sphinx configuration of the docs site, which `make docs` builds offline into build/docs."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))  # its extensions

project = "litlab"
author = "litlab"
project_copyright = ""
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "reference_pages",
]
myst_enable_extensions = ["deflist"]
smartquotes = False
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples/*/src", "examples/*/conf"]
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc)", ".*")]  # types in signatures, most of them of other packages
napoleon_use_ivar = True
highlight_language = "text"
myst_heading_anchors = 4
copybutton_prompt_text = "$ "

html_theme = "pydata_sphinx_theme"
html_title = "litlab"
html_show_sourcelink = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["litlab.css"]
html_theme_options = {
    "header_links_before_dropdown": 6,
    "show_prev_next": False,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": [],
    "footer_end": [],
}

# Pages that group others: what they list, as `- [title](page.md)`, are their subpages.
GROUPS = ("index", "how_to", "explanations", "reference", "results", "examples/README")
_LISTED = re.compile(r"^- \*{0,2}\[([^\]]+)\]\((\S+)\.md\)", re.MULTILINE)


def list_to_toctree(app: Sphinx, docname: str, source: list[str]) -> None:
    """Append a toctree of the pages that a group lists: GitHub shows lists of links, but no toctrees."""
    if docname in GROUPS:
        entries = [f"{title} <{page}>" for title, page in _LISTED.findall(source[0])]
        source[0] = "\n".join([source[0], "", "```{toctree}", ":hidden:", "", *entries, "```", ""])


def setup(app: Sphinx) -> None:
    """Register the groups of pages."""
    app.connect("source-read", list_to_toctree)
