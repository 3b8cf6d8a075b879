"""One page of S3's listing, and the proof that it is the page that was asked for.

A listing decides which clips are done and which MP4s nothing names. An empty answer, a web page or
the listing of something else must not count as an empty output, so every part of a page is checked.
"""

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.utils import parse_timestamp

from jobs.store.s3_errors import strange_answer
from jobs.store.uri import StoredObject

UTC_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z", re.ASCII
)
HTTP_TIME = re.compile(
    r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} "
    r"[0-9]{2}:[0-9]{2}:[0-9]{2} GMT",
    re.ASCII,
)


@dataclass(frozen=True)
class Page:
    """One page of a listing.

    Args:
        objects: their keys are whole, with the prefix of the store.
        next_token: the token that asks for the next page; None at the last page.
        answered_at: the `Date` of the answer, in seconds since the epoch; None without one.
    """

    objects: tuple[StoredObject, ...]
    next_token: str | None
    answered_at: float | None


def read_page(page: Mapping[str, Any], wanted: Mapping[str, Any], where: str) -> Page:
    """Return an answer to ListObjectsV2 as a page.

    Args:
        page: the answer as botocore parsed it.
        wanted: the parameters of the request.
        where: the URI that is listed, for messages.

    Raises:
        StoreUnavailableError: the answer is not the page that was asked for, or not whole.
    """
    prefix: str = wanted["Prefix"]
    if not isinstance(page.get("IsTruncated"), bool):
        raise strange_answer("list", where, "a listing without IsTruncated")
    if page.get("Prefix", "") != prefix:
        raise strange_answer("list", where, "the listing of another prefix")
    objects = tuple(_stored(entry, prefix, where) for entry in page.get("Contents", ()))
    if not page["IsTruncated"] or "MaxKeys" in wanted:
        return Page(objects, None, _date(page))
    token = page.get("NextContinuationToken")
    if not isinstance(token, str) or token in ("", wanted.get("ContinuationToken")):
        raise strange_answer("list", where, "a listing that goes on, without saying where")
    return Page(objects, token, _date(page))


def read_time(written: Any) -> datetime:
    """Return a time of an answer: of a listing, or of an object in the words of HTTP.

    botocore's own parser tries all forms of times, which takes most of the time of a long listing,
    and a tenth of that of a read. Times of other forms than S3's are left to it.
    """
    if isinstance(written, str):
        with contextlib.suppress(ValueError):  # botocore refuses the 31st of April in its words
            if UTC_TIME.fullmatch(written):
                return datetime.fromisoformat(written)
            if HTTP_TIME.fullmatch(written):
                return parsedate_to_datetime(written).astimezone(UTC)
    return parse_timestamp(written)


def _date(page: Mapping[str, Any]) -> float | None:
    text = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date", "")
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def _stored(entry: Mapping[str, Any], prefix: str, where: str) -> StoredObject:
    key, size, modified = (entry.get(name) for name in ("Key", "Size", "LastModified"))
    if (
        isinstance(key, str)
        and isinstance(size, int)
        and isinstance(modified, datetime)
        and key.startswith(prefix)
        and size >= 0
    ):
        return StoredObject(key, size, modified.timestamp())
    raise strange_answer(
        "list",
        where,
        "an entry of the listing lacks its key, size or time, or is not below the prefix",
    )
