"""The links of a gallery to the clips: relative, below a web server's address, or presigned."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from jobs.errors import RefusedError
from jobs.records.schema import utc_iso
from jobs.report.target import Target
from jobs.store.folder_store import FolderStore
from jobs.store.store import Store
from jobs.text import shown

IN_OUTPUT = "../"


class Links(Protocol):
    """The links of one gallery.

    `base` stands before each key. `valid_s` is how long links work; None for ever.
    """

    @property
    def base(self) -> str: ...

    @property
    def valid_s(self) -> float | None: ...

    def sign(self, keys: Sequence[str]) -> dict[str, Any] | None:
        """Return the presigned links of a part, as its file has them; None for plain links."""
        ...


@dataclass(frozen=True)
class PlainLinks:
    """Links that a key alone completes."""

    base: str
    valid_s: None = None

    def sign(self, keys: Sequence[str]) -> None:
        del keys


@dataclass(frozen=True)
class PresignedLinks:
    """Links that hold a signature, so that whoever has one may read its object for some time.

    Args:
        valid_s: seconds for which they work.
        base: address of the output.
        presign: returns the query of a key's link, up to its signature, and the signature.
    """

    valid_s: float
    base: str
    presign: Callable[[str], tuple[str, str]]

    def sign(self, keys: Sequence[str]) -> dict[str, Any]:
        expire_at = utc_iso(time.time() + self.valid_s)
        positions: dict[str, int] = {}
        signed: dict[str, tuple[int, str]] = {}
        for key in keys:
            query, signature = self.presign(key)
            signed[key] = positions.setdefault(query, len(positions)), signature
        return {"expire_at": expire_at, "queries": list(positions), "signed": signed}


def plain_links(store: Store, target: Target, base_url: str | None) -> PlainLinks:
    """Return links below the address of a web server, or relative to the page.

    Raises:
        RefusedError: the gallery lies apart from clips in S3, so that no relative link leads there.
    """
    if base_url is not None:
        return PlainLinks(check_base_url(base_url))
    if target.is_output:
        return PlainLinks(IN_OUTPUT)
    if not (isinstance(store, FolderStore) and isinstance(target.store, FolderStore)):
        raise RefusedError(
            f"{target.store.uri}: a gallery apart from its output in S3 needs links to the clips: "
            "add --links presigned, or --links with the address of the output on a web server, "
            "or leave --to out and find the gallery in the output"
        )
    way = os.path.relpath(store.location.path, target.store.location.path)
    return PlainLinks(f"{quote(way)}/")


def check_base_url(url: str) -> str:
    """Return the address of a web server with a slash at its end.

    Raises:
        RefusedError: it is none that a page could use.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address, parts = False, urlsplit("")
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" \"'<>\\;,")
    if not is_address or not is_plain or parts.query or parts.fragment:
        raise RefusedError(
            f"--links: expected the address of the output on a web server, such as "
            f"https://cdn.example.com/spring/, got {shown(url)}"
        )
    if parts.username or parts.password:
        raise RefusedError("--links holds a user or password, which everyone would read")
    return f"{url.rstrip('/')}/"


def origin_of(base: str) -> str | None:
    """Return the origin of an absolute base, for the page's policy; None for a relative one."""
    parts = urlsplit(base)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme else None
