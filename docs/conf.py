"""The manual as a site: `make docs` builds it into build/docs.

The source is the repository itself, so that links between pages, files of code and pictures are
the same here and on GitHub. README.md is the front page, and docs/README.md the table of contents.
"""

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

from contents import toctrees  # noqa: E402
from generated import GENERATED  # noqa: E402

project = "nagfarm"
copyright = "the nagfarm authors, Apache-2.0"  # noqa: A001
root_doc = "README"
include_patterns = ["*.md", "nag/README.md", "infra/README.md", "docs/**"]
exclude_patterns = [".*", "build", "dist"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]

myst_heading_anchors = 4  # a link to a heading of another page, as on GitHub
highlight_language = "sh"  # a block without a language holds commands
copybutton_exclude = ".linenos, .gp, .go"
default_role = "literal"  # for single backticks in docstrings
smartquotes = False  # a quote in a sentence may be one of a command

autodoc_typehints_format = "short"
napoleon_use_ivar = True
maximum_signature_line_length = 88

html_theme = "furo"
html_title = "nagfarm"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}


def fill_page(_app: Sphinx, docname: str, content: list[str]) -> None:
    """Give the front page the tables of contents, and marked places their generated text."""
    for marker, write in GENERATED.items():
        if marker in content[0]:
            content[0] = content[0].replace(marker, write())
    if docname == root_doc:
        content[0] += toctrees(ROOT)


def make_index(app: Sphinx, error: Exception | None) -> None:
    """Give the front page the name that a web server looks for."""
    page = Path(app.outdir) / f"{root_doc}.html"
    if error is None and page.exists():
        page.with_name("index.html").write_bytes(page.read_bytes())


def setup(app: Sphinx) -> None:
    """Connect the two steps above."""
    app.connect("source-read", fill_page)
    app.connect("build-finished", make_index)
