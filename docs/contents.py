"""The parts of the manual and the order of their pages, read from docs/README.md.

Each of its headings begins a part; the links below it are the part's pages. A page of a folder that
docs/README.md does not list yet is added to the last part with pages of that folder.
"""

import os
import re
from pathlib import Path

PARTS = re.compile(r"^## (.+)\n((?:(?!## ).*\n?)*)", re.MULTILINE)
PAGE_LINK = re.compile(r"\]\(([^)#:]+\.md)(?:#[^)]*)?\)")
FIRST = "docs/README"


def listed(root: Path) -> dict[str, list[str]]:
    """Return the pages that docs/README.md lists, by part, relative to `root`.

    A page belongs to the first part that links to it.
    """
    text = (root / "docs" / "README.md").read_text(encoding="utf-8")
    parts: dict[str, list[str]] = {}
    known: set[str] = set()
    for caption, lines in PARTS.findall(text):
        links = [os.path.normpath(Path("docs", link)) for link in PAGE_LINK.findall(lines)]
        pages = [link.removesuffix(".md") for link in dict.fromkeys(links)]
        parts[caption] = [page for page in pages if page not in known]
        known.update(pages)
    return parts


def contents(root: Path) -> dict[str, list[str]]:
    """Return the pages of each part: those listed, then those that only lie in its folder."""
    parts = listed(root)
    known = {page for pages in parts.values() for page in pages}
    for path in sorted((root / "docs").rglob("*.md")):
        page = path.relative_to(root).with_suffix("").as_posix()
        homes = [
            caption
            for caption, pages in parts.items()
            if any(Path(one).parent == Path(page).parent for one in pages)
        ]
        if page not in known and page != FIRST and homes:
            parts[homes[-1]].append(page)
    return parts


def toctrees(root: Path) -> str:
    """Return the toctrees of the front page, one a part."""
    lines = ["", "```{toctree}", ":hidden:", "", FIRST, "```"]
    for caption, pages in contents(root).items():
        lines += ["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```"]
    return "\n".join([*lines, ""])
