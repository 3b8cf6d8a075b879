"""What an output URI may look like, and what a key in a store may look like.

Decides alone; nothing here touches the network. Two kinds are known: `s3://bucket/prefix` and `file:///dir`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from jobs.errors import OutputUriError, StoreRefusedError

MAX_KEY_BYTES = 1024  # S3's limit, prefix included
ACCESS_CHECK_PREFIX = "access-check-"  # of the key that a check of the store writes and removes
BUCKET = re.compile(r"[a-z0-9](?:[a-z0-9-]|\.(?=[a-z0-9]))*[a-z0-9]")
ADDRESS = re.compile(r"\d+\.\d+\.\d+\.\d+")
# what S3 calls safe, and a little more that needs no escaping; no segment begins with a dot, as temporary files do
PREFIX_SEGMENT = re.compile(r"[A-Za-z0-9!_'()=+@,~ -][A-Za-z0-9!_.'()=+@,~ -]*")
KEY_SEGMENT = re.compile(r"[A-Za-z0-9_=+@-][A-Za-z0-9_.=+@-]*")


@dataclass(frozen=True)
class S3Location:
    """A place in a bucket. `prefix` has no slash at either end and may be empty."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class FolderLocation:
    """A folder, absolute."""

    path: Path

    def __str__(self) -> str:
        return self.path.as_uri()


@dataclass(frozen=True)
class StoredObject:
    """What a listing says of one object.

    Args:
        modified_at: when it was last written, in seconds since the epoch, by the store's clock; S3 knows whole seconds.
    """

    key: str
    num_bytes: int
    modified_at: float


def parse_output_uri(uri: str) -> S3Location | FolderLocation:
    """Reads an output URI, strictly.

    Raises:
        OutputUriError: anything else than `s3://bucket`, `s3://bucket/prefix` or `file:///folder`, saying what was
            expected.
    """
    scheme, rest = split_scheme(uri)
    if scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        return S3Location(check_bucket(uri, bucket), check_prefix(uri, prefix))
    if not rest.startswith("/"):
        raise OutputUriError(
            f"{uri!r} names a host or a relative folder; expected three slashes, file:///folder"
        )
    decoded = unquote(rest, errors="strict") if is_percent_encoded(uri, rest) else rest
    refuse_control_characters(uri, decoded)
    segments = decoded.strip("/").split("/")
    if segments == [""]:
        raise OutputUriError(
            f"{uri!r} is the root of the file system; expected a folder, file:///folder"
        )
    if {"", ".", ".."} & set(segments):
        raise OutputUriError(
            f"{uri!r} holds an empty, '.' or '..' segment; expected a plain path, file:///folder"
        )
    return FolderLocation(Path("/", *segments))


def parse_object_uri(uri: str) -> tuple[str, str]:
    """Bucket and key of one existing object, whose key may be anything printable.

    Raises:
        OutputUriError: not `s3://bucket/key`.
    """
    scheme, rest = split_scheme(uri)
    bucket, _, key = rest.partition("/")
    if scheme != "s3" or not key or key.endswith("/"):
        raise OutputUriError(f"{uri!r} is no object; expected s3://bucket/key")
    if {"", ".", ".."} & set(key.split("/")):
        raise OutputUriError(
            f"{uri!r} holds an empty, '.' or '..' segment; expected s3://bucket/key"
        )
    return check_bucket(uri, bucket), key


def split_scheme(uri: str) -> tuple[str, str]:
    refuse_control_characters(uri, uri)
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in ("s3", "file"):
        raise OutputUriError(
            f"{uri!r} is no URI of a store; expected s3://bucket/prefix or file:///folder"
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
    """Whether a path is to be decoded. A '%' that encodes nothing is refused.

    Raises:
        OutputUriError: such a '%', or bytes that are no UTF-8.
    """
    if re.search(r"%(?![0-9A-Fa-f]{2})", path):
        raise OutputUriError(
            f"{uri!r} holds a '%' that encodes nothing; expected %25 for the character itself"
        )
    try:
        unquote(path, errors="strict")
    except UnicodeDecodeError as error:
        raise OutputUriError(f"{uri!r} encodes bytes that are no UTF-8") from error
    return "%" in path


def check_bucket(uri: str, bucket: str) -> str:
    """Source: Amazon S3 user guide, "General purpose bucket naming rules"."""
    if not bucket:
        raise OutputUriError(f"{uri!r} names no bucket; expected s3://bucket/prefix")
    if not 3 <= len(bucket) <= 63 or not BUCKET.fullmatch(bucket) or ADDRESS.fullmatch(bucket):
        raise OutputUriError(
            f"{uri!r}: {bucket!r} is no bucket's name; expected 3 to 63 lower-case letters, digits, '-' and "
            "single '.', beginning and ending in a letter or digit, and no IP address"
        )
    return bucket


def check_prefix(uri: str, prefix: str) -> str:
    trimmed = prefix.removesuffix("/")
    if not trimmed:
        if prefix:
            raise OutputUriError(f"{uri!r} holds an empty segment; expected s3://bucket/prefix")
        return ""
    for segment in trimmed.split("/"):
        if not PREFIX_SEGMENT.fullmatch(segment):
            raise OutputUriError(
                f"{uri!r}: {segment!r} cannot be part of a prefix; expected letters, digits, spaces and !_.'()=+@,~- "
                "between single slashes, no segment beginning with a dot"
            )
    if len(trimmed) > MAX_KEY_BYTES // 2:
        raise OutputUriError(f"{uri!r} has a prefix longer than {MAX_KEY_BYTES // 2} characters")
    return trimmed


def is_key(key: str) -> bool:
    """Whether every store takes a key: plain segments between single slashes, none beginning with a dot."""
    return len(key) <= MAX_KEY_BYTES // 2 and all(
        KEY_SEGMENT.fullmatch(segment) for segment in key.split("/")
    )


def check_key(key: str) -> str:
    """Returns a key as it came.

    Raises:
        StoreRefusedError: it could leave the store, or some store could not hold it.
    """
    if not is_key(key):
        raise StoreRefusedError(
            f"{key!r} is no key; expected letters, digits and _.=+@- between single slashes"
        )
    return key


def check_body(key: str, body: bytes | Path) -> None:
    """Refuses to upload a file that is not there, which no store should be blamed for.

    Raises:
        StoreRefusedError: it is not.
    """
    if isinstance(body, Path) and not body.is_file():
        raise StoreRefusedError(f"there is no file {body.name} to write to {key!r}")
