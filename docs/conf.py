"""How Sphinx makes the site of these pages: `make docs`. Nothing is fetched, and nobody is told who reads it."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from recdistill import __version__  # noqa: E402

project = "recdistill"
author = "the authors of recdistill"
copyright = "the authors of recdistill, Apache-2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "_ext.reference"]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 4  # pages link to headings as code hosts name them
highlight_language = "text"  # a fence that names no language is what a terminal shows
smartquotes = False  # --shard is not a dash
default_role = "code"  # docstrings quote names in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100

html_theme = "furo"
html_title = "recdistill"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "github-dark"
