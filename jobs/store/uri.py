"""The form of an output URI and of a key in a store.

Uses no network. An output is `s3://bucket/prefix`, `file:///folder` or a plain folder; the URI of a
plain one is `file:///` with its absolute path.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from jobs.errors import OutputUriError, StoreRefusedError
from jobs.store.plain_folder import absolute_folder, is_plain_folder

MAX_KEY_BYTES = 1024  # S3's limit, prefix included
ACCESS_CHECK_PREFIX = "access-check-"  # a check of the store writes and removes such a key
BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9]))*[a-z0-9]")
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
# Characters that S3 calls safe, and a few more that need no escaping. No segment begins with a dot,
# since the names of temporary files do.
PREFIX_SEGMENT = re.compile(r"[A-Za-z0-9!_'()=+@,~ -][A-Za-z0-9!_.'()=+@,~ -]*")
_SEGMENT = r"[A-Za-z0-9_=+@-][A-Za-z0-9_.=+@-]*"
KEY = re.compile(rf"{_SEGMENT}(?:/{_SEGMENT})*")


@dataclass(frozen=True)
class S3Location:
    """A prefix of a bucket. `prefix` has no slash at either end and may be empty."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class FolderLocation:
    """An absolute path of a folder."""

    path: Path

    def __str__(self) -> str:
        return self.path.as_uri()


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object of a listing.

    Args:
        modified_at: time of the last write, in seconds since the epoch, by the store's clock. S3
            gives whole seconds.
    """

    key: str
    num_bytes: int
    modified_at: float


def is_listed(listing: Iterable[StoredObject], key: str, num_bytes: int) -> bool:
    """Return True if a listing holds an object under this key in that size."""
    return any(one.key == key and one.num_bytes == num_bytes for one in listing)


def parse_output_uri(uri: str) -> S3Location | FolderLocation:
    """Parse an output URI strictly.

    Raises:
        OutputUriError: the URI differs from `s3://bucket`, `s3://bucket/prefix`, `file:///folder`
            and a plain folder; the message names the form that was expected.
    """
    if is_plain_folder(uri):
        refuse_control_characters(uri, uri)
        return _folder(uri, absolute_folder(uri).parts[1:])
    scheme, rest = split_scheme(uri)
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Location(check_bucket(uri, bucket), check_prefix(uri, prefix))
    if not rest.startswith("/"):
        raise OutputUriError(
            f"{uri!r} names a host or a relative folder; expected three slashes, file:///folder, "
            "or the folder alone, such as ./out"
        )
    decoded = unquote(rest, errors="strict") if is_percent_encoded(uri, rest) else rest
    refuse_control_characters(uri, decoded)
    segments = decoded.strip("/").split("/")
    if {"", ".", ".."} & set(segments) and segments != [""]:
        raise OutputUriError(
            f"{uri!r} holds an empty, '.' or '..' segment; expected a plain path, file:///folder"
        )
    return _folder(uri, segments)


def _folder(uri: str, segments: Sequence[str]) -> FolderLocation:
    path = Path("/", *segments)
    if path == Path("/"):
        raise OutputUriError(f"{uri!r} is the root of the file system; expected a folder in it")
    return FolderLocation(path)


def parse_object_uri(uri: str) -> tuple[str, str]:
    """Return bucket and key of one existing object, whose key may be anything printable.

    Raises:
        OutputUriError: the URI differs from `s3://bucket/key`.
    """
    scheme, rest = split_scheme(uri)
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not key or key.endswith("/"):
        raise OutputUriError(f"{uri!r} does not name an object; expected s3://bucket/key")
    if {"", ".", ".."} & set(key.split("/")):
        raise OutputUriError(
            f"{uri!r} holds an empty, '.' or '..' segment; expected s3://bucket/key"
        )
    return check_bucket(uri, bucket), key


def split_scheme(uri: str) -> tuple[str, str]:
    """Return scheme and path of a store's URI.

    Raises:
        OutputUriError: the scheme is unknown, or the URI holds a query, a fragment or a character
            that cannot be printed.
    """
    refuse_control_characters(uri, uri)
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("s3", "file"):
        raise OutputUriError(
            f"{uri!r} does not name a store; expected s3://bucket/prefix, file:///folder or a "
            "folder such as ./out"
        )
    if found := sorted(set(rest) & set("?#\\")):
        raise OutputUriError(
            f"{uri!r} holds {' '.join(found)}; expected a plain path without query or fragment"
        )
    return scheme, rest


def refuse_control_characters(uri: str, text: str) -> None:
    if not text.isprintable():
        raise OutputUriError(
            f"{uri!r} holds a control character or other unprintable one; expected a plain path"
        )


def is_percent_encoded(uri: str, path: str) -> bool:
    """Return True if a path must be decoded. Refuse a '%' that encodes nothing.

    Raises:
        OutputUriError: the path holds such a '%', or bytes that are not UTF-8.
    """
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise OutputUriError(
            f"{uri!r} holds a '%' that encodes nothing; expected %25 for the character itself"
        )
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise OutputUriError(f"{uri!r} encodes bytes that are not UTF-8; expected UTF-8") from error
    return "%" in path


def check_bucket(uri: str, bucket: str) -> str:
    """Return a bucket's name unchanged.

    Source: Amazon S3 user guide, "General purpose bucket naming rules".

    Raises:
        OutputUriError: the name breaks these rules.
    """
    if not bucket:
        raise OutputUriError(f"{uri!r} names no bucket; expected s3://bucket/prefix")
    if not 3 <= len(bucket) <= 63 or not BUCKET.fullmatch(bucket) or ADDRESS.fullmatch(bucket):
        raise OutputUriError(
            f"{uri!r}: {bucket!r} cannot be a bucket's name; expected 3 to 63 lower-case letters, "
            "digits, '-' and single '.', beginning and ending in a letter or digit, and no IP "
            "address"
        )
    return bucket


def check_prefix(uri: str, prefix: str) -> str:
    """Return a prefix without its last slash.

    Raises:
        OutputUriError: a segment is empty or holds a character outside PREFIX_SEGMENT, or the
            prefix is too long.
    """
    trimmed = prefix.removesuffix("/")
    if not trimmed:
        if prefix:
            raise OutputUriError(f"{uri!r} holds an empty segment; expected s3://bucket/prefix")
        return ""
    for segment in trimmed.split("/"):
        if not PREFIX_SEGMENT.fullmatch(segment):
            raise OutputUriError(
                f"{uri!r}: {segment!r} cannot be part of a prefix; expected letters, digits, "
                "spaces and !_.'()=+@,~- between single slashes, no segment beginning with a dot"
            )
    if len(trimmed) > MAX_KEY_BYTES // 2:
        raise OutputUriError(f"{uri!r} has a prefix longer than {MAX_KEY_BYTES // 2} characters")
    return trimmed


def is_key(key: str) -> bool:
    """Return True for a key that every store accepts.

    Such a key has plain segments between single slashes, and no segment begins with a dot.
    """
    return len(key) <= MAX_KEY_BYTES // 2 and KEY.fullmatch(key) is not None


def check_key(key: str) -> str:
    """Return a key unchanged.

    Raises:
        StoreRefusedError: the key could lead out of the store, or some store could not hold it.
    """
    if not is_key(key):
        raise StoreRefusedError(
            f"{key!r} cannot be a key; expected letters, digits and _.=+@- between single slashes"
        )
    return key


def check_body(key: str, body: bytes | Path) -> None:
    """Refuse to upload a missing file, which is not the store's fault.

    Raises:
        StoreRefusedError: the file is missing.
    """
    if isinstance(body, Path) and not body.is_file():
        raise StoreRefusedError(f"file {body.name}, to be written to {key!r}, does not exist")
