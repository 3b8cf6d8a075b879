"""The files of the page itself, which come with the program, and its policy for other origins."""

import mimetypes
from collections.abc import Iterator
from pathlib import Path

from jobs.report.links import origin_of
from jobs.report.scripts import JAVASCRIPT

FOLDER = Path(__file__).parent / "page"
PAGE = "index.html"
OWN = b"'self'"
OF_CLIPS = (b"img-src", b"media-src")  # in index.html these allow the page's own origin alone
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": JAVASCRIPT}


def page_files(link_base: str) -> Iterator[tuple[str, bytes, str]]:
    """Yield name, content and content type of each file; the page itself comes last.

    Args:
        link_base: prefix of the links to clips; the page may load from its origin.
    """
    paths = sorted(path for path in FOLDER.rglob("*") if path.is_file())
    for path in sorted(paths, key=lambda path: path.name == PAGE):
        name, content = path.relative_to(FOLDER).as_posix(), path.read_bytes()
        origin = origin_of(link_base)
        if name == PAGE and origin is not None:
            for directive in OF_CLIPS:
                own = b"%s %s" % (directive, OWN)
                assert content.count(own) == 1, "the policy of index.html has another form"
                content = content.replace(own, b"%s %s" % (own, origin.encode()))
        yield name, content, TYPES.get(path.suffix) or content_type_of(path)


def content_type_of(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "text/plain; charset=utf-8"
