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
from jobs.timetable.durations import read_duration

IN_OUTPUT = "../"
RELATIVE, PRESIGNED = "relative", "presigned"
LINKS_HELP = (
    "how the page reaches the clips: relative, which suits any web server and any disk that holds "
    "the output; presigned or presigned=2d, for a private bucket: whoever has the page may read "
    "the clips for that time, 7d at most; or the address of the output on a web server, such as "
    "https://cdn.example.com/spring (default: as the gallery has it, or relative)"
)


class Links(Protocol):
    """The links of one gallery.

    `written` is the option that asks for them, `base` stands before each key, and `valid_s` is the
    time for which a link works; None for ever.
    """

    @property
    def written(self) -> str: ...

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
    written: str = RELATIVE
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

    written: str
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


def links_of(store: Store, target: Target, written: str | None = None) -> Links:
    """Return the links of a gallery.

    Args:
        written: as in `LINKS_HELP`; None for those that the gallery has, or else relative ones.

    Raises:
        RefusedError: it has none of these forms, or does not suit the output.
        StoreRefusedError: presigned links need credentials, and none are found.
    """
    if written is None:
        kept = (target.read_index() or {}).get("links")
        written = kept if isinstance(kept, str) else RELATIVE
    kind, separator, valid = written.partition("=")
    if kind == PRESIGNED:
        from jobs.store.s3_presign import MAX_VALID_S, presigned_links

        valid_s = read_duration("--links presigned", valid) if separator else MAX_VALID_S
        return PresignedLinks(written, valid_s, *presigned_links(store, valid_s))
    if "://" in written:
        return PlainLinks(check_base_url(written), written)
    if written != RELATIVE:
        raise RefusedError(
            "--links: expected relative, presigned, presigned=2d or the address of a web server, "
            f"got {shown(written)}"
        )
    return PlainLinks(IN_OUTPUT if target.is_output else _way(store, target))


def _way(store: Store, target: Target) -> str:
    """Return the relative link from a folder of a gallery to its output.

    Raises:
        RefusedError: the output is in S3, so that no relative link leads there.
    """
    if not (isinstance(store, FolderStore) and isinstance(target.store, FolderStore)):
        raise RefusedError(
            f"{target.store.uri}: a gallery apart from its output in S3 needs links to the clips: "
            "add --links presigned, or --links with the address of the output on a web server, "
            "or leave --to out and find the gallery in the output"
        )
    way = os.path.relpath(store.location.path, target.store.location.path)
    return f"{quote(way)}/"


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
