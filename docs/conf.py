"""Sphinx configuration of the docs site, which `make docs` builds offline into build/docs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # its extensions

project = "litlab"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "github_markdown",
    "reference_pages",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples/*/src", "examples/*/conf"]
nitpicky = True
nitpick_ignore_regex = [("py:(class|exc)", ".*")]  # types in signatures, most of them of other packages
smartquotes_action = "D"  # dashes of the API's fields; quotes stay

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
napoleon_use_ivar = True
default_role = "literal"  # of docstrings
add_function_parentheses = False
toc_object_entries_show_parents = "hide"
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True

copybutton_prompt_text = "$ "
copybutton_line_continuation_character = "\\"

html_theme = "pydata_sphinx_theme"
html_title = "litlab"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["litlab.css"]
html_js_files = ["file_search.js"]
html_context = {"default_mode": "auto"}  # light or dark as the browser is
html_sidebars = {"**": ["sidebar-nav-bs"], "index": [], "tutorial": []}
html_show_sourcelink = False
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_theme_options = {
    "logo": {"text": "litlab", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "header_links_before_dropdown": 6,
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
    "show_prev_next": False,
    "footer_start": [],
    "footer_end": [],
}
