"""Where clips and records are kept: what a store promises, S3, and the choice between S3 and a folder.

Decides how S3 is spoken to, and what proves that an object arrived. Retrying is botocore's alone,
`StoreConfig.max_attempts` times; an error that leaves this module has been through it, and `s3_errors` said what it
means. Credentials are found by boto3, looked up again by `s3_credentials`, and appear in no message.
"""

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

from jobs.config import StoreConfig
from jobs.errors import (
    CredentialsExpiredError,
    ObjectExistsError,
    ObjectMissingError,
    RefusedError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.store.folder_store import FolderStore
from jobs.store.s3_credentials import Connection, RotatingConnection
from jobs.store.s3_errors import s3_errors
from jobs.store.uri import (
    ACCESS_CHECK_PREFIX,
    S3Location,
    StoredObject,
    check_body,
    check_key,
    is_key,
    parse_object_uri,
    parse_output_uri,
)

MAX_PUT_BYTES = (
    5 * 1024**3
)  # of one PutObject; a clip is a thousand times smaller, so nothing here is multipart


class Store(Protocol):
    """Objects under keys. Cheap to pickle; the other process connects for itself."""

    @property
    def uri(self) -> str: ...

    def uri_of(self, key: str) -> str: ...

    def put(self, key: str, body: bytes | Path, content_type: str) -> None:
        """Writes an object whole, in place of one that may be there. Returns when it is proven to be there.

        Raises:
            StoreUnavailableError: no answer, no space, or the store confirms other bytes than were sent.
        """
        ...

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        """Writes an object only if there is none; of several at once exactly one succeeds.

        Raises:
            ObjectExistsError: there is one. After an answer that was lost on the way, it may be the caller's own.
            StoreUnavailableError: as `put`; the object may have been written nevertheless.
        """
        ...

    def get(self, key: str) -> bytes:
        """Raises ObjectMissingError if there is none."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """Removes an object; that there was none is not an error."""
        ...

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """All objects whose keys begin with `prefix`, page by page, in no promised order."""
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """The keys of `entries`."""
        ...

    def check_access(self) -> None:
        """Proves, before a run, everything that the commit needs of the store; leaves nothing behind."""
        ...


def open_store(uri: str, config: StoreConfig) -> Store:
    """The store that an output URI names. It is not looked at yet; `check_access` does that.

    Raises:
        OutputUriError: the URI is none of `s3://bucket/prefix` and `file:///folder`.
        StoreRefusedError: boto3 can make no client of the configuration or the environment.
    """
    location = parse_output_uri(uri)
    return S3Store(location, config) if isinstance(location, S3Location) else FolderStore(location)


def read_object(uri: str, config: StoreConfig, max_bytes: int) -> bytes:
    """Reads one object of S3, such as a file of prompts.

    Raises:
        OutputUriError: not `s3://bucket/key`.
        RefusedError: it is larger than `max_bytes`.
        ObjectMissingError: there is none.
    """
    bucket, key = parse_object_uri(uri)
    with s3_errors("read", uri):
        stream = connect(config).client.get_object(Bucket=bucket, Key=key)["Body"]
        with contextlib.closing(stream):
            body = stream.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise RefusedError(f"{uri} is larger than {max_bytes:,} bytes")
    return body


class S3Store:
    """A prefix of a bucket, on AWS or on any endpoint that knows `If-None-Match: *`. Threads may share one."""

    def __init__(self, location: S3Location, config: StoreConfig) -> None:
        self.location = location
        self.config = config
        self._connection = RotatingConnection(lambda: connect(config))

    def __reduce__(self) -> tuple[type["S3Store"], tuple[S3Location, StoreConfig]]:
        return S3Store, (self.location, self.config)

    @property
    def uri(self) -> str:
        return str(self.location)

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{check_key(key)}"

    def put(self, key: str, body: bytes | Path, content_type: str) -> None:
        check_body(key, body)
        if isinstance(body, bytes):
            self._put(key, body, hashlib.sha256(body).digest(), content_type)
            return
        with body.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
            if file.tell() > MAX_PUT_BYTES:
                raise StoreRefusedError(
                    f"{body.name} has {file.tell():,} bytes; S3 takes {MAX_PUT_BYTES:,} at once"
                )
            self._put(key, file, digest, content_type)

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        self._put(key, body, hashlib.sha256(body).digest(), content_type, IfNoneMatch="*")

    def _put(
        self, key: str, body: bytes | IO[bytes], sha256: bytes, content_type: str, **condition: str
    ) -> None:
        """Sends the digest along, by which the server refuses a body that was damaged on its way, and compares the
        one in the answer. AWS and SeaweedFS give one, so that the proof costs no request; elsewhere the object is
        read back.
        """
        checksum = base64.b64encode(sha256).decode()
        wanted = {
            **self._address(key),
            "ContentType": content_type,
            "ChecksumSHA256": checksum,
            **condition,
        }

        def write(client: Any) -> Any:
            if not isinstance(body, bytes):
                body.seek(0)
            return client.put_object(**wanted, Body=body)

        with s3_errors("write", self.uri_of(key)):
            stored = self._connection.send(write).get("ChecksumSHA256")
        if stored is None:
            try:
                stored = base64.b64encode(hashlib.sha256(self.get(key)).digest()).decode()
            except ObjectMissingError as error:
                raise StoreUnavailableError(
                    f"{self.uri_of(key)} was confirmed by the store and is not there"
                ) from error
        if stored != checksum:
            raise StoreUnavailableError(
                f"cannot write {self.uri_of(key)}: the store confirms other bytes than were sent, damaged on the way"
            )

    def get(self, key: str) -> bytes:
        def read(client: Any) -> bytes:
            stream = client.get_object(**self._address(key))["Body"]
            with contextlib.closing(stream):
                return stream.read()

        with s3_errors("read", self.uri_of(key)):
            return self._connection.send(read)

    def exists(self, key: str) -> bool:
        """By listing, because the answer to HEAD does not tell a missing key from a missing bucket."""
        wanted = self._address(key)
        page = self._list(self.uri_of(key), Prefix=wanted["Key"], MaxKeys=1)
        return any(entry["Key"] == wanted["Key"] for entry in page.get("Contents", []))

    def delete(self, key: str) -> None:
        with s3_errors("remove", self.uri_of(key)):
            self._connection.send(lambda client: client.delete_object(**self._address(key)))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        own = f"{self.location.prefix}/" if self.location.prefix else ""
        next_page = dict[str, str]()
        while True:
            page = self._list(f"{self.uri}/{prefix}", Prefix=own + prefix, **next_page)
            for entry in page.get("Contents", []):
                key = entry["Key"].removeprefix(own)
                if is_key(key):  # a console's "folder", or somebody else's object, is none of ours
                    yield StoredObject(key, entry["Size"], entry["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            next_page = {"ContinuationToken": page["NextContinuationToken"]}

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def _list(self, where: str, **wanted: str | int) -> Any:
        """One page. Listing page by page, not by botocore's paginator, lets credentials change in between."""
        with s3_errors("list", where):
            return self._connection.send(
                lambda client: client.list_objects_v2(Bucket=self.location.bucket, **wanted)
            )

    def check_access(self) -> None:
        """Writes, writes again under the condition, reads, lists and removes.

        Raises:
            StoreRefusedError: one of these is not allowed, the credentials are over, or the endpoint ignores the
                condition.
            StoreUnavailableError: no answer.
        """
        try:
            self._check_access(f"{ACCESS_CHECK_PREFIX}{secrets.token_hex(8)}")
        except (
            CredentialsExpiredError
        ) as error:  # nothing has begun that would be worth waiting for new ones
            raise StoreRefusedError(str(error)) from error

    def _check_access(self, key: str) -> None:
        self.put_if_absent(key, b"check", "text/plain")
        try:
            with contextlib.suppress(ObjectExistsError):
                self.put_if_absent(key, b"again", "text/plain")
            if self.get(key) != b"check":
                raise StoreRefusedError(
                    f"{self.uri}: the endpoint ignores If-None-Match, without which two workers could commit one clip; "
                    "use an endpoint that has conditional writes"
                )
            if not self.exists(key):
                raise StoreRefusedError(
                    f"{self.uri}: the endpoint does not list what was written to it"
                )
        finally:
            self.delete(key)

    def _address(self, key: str) -> dict[str, str]:
        prefix = f"{self.location.prefix}/" if self.location.prefix else ""
        return {"Bucket": self.location.bucket, "Key": prefix + check_key(key)}


def connect(config: StoreConfig) -> Connection:
    """A boto3 client for S3, its credentials looked up anew. Threads may share it; no request is made to S3 yet.

    Raises:
        StoreRefusedError: the profile, the region or the endpoint that configuration and environment name is no good,
            or credentials that should be there are not handed out.
    """

    def client(addressing_style: str) -> Any:
        settings = Config(
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            retries={"mode": "adaptive", "total_max_attempts": config.max_attempts},
            s3={"addressing_style": addressing_style},
        )
        return session.client("s3", endpoint_url=config.endpoint_url, config=settings)

    try:
        with s3_errors("connect to", "S3"):
            session = boto3.Session(region_name=config.region)
            found = client("auto")
            endpoint = urlsplit(found.meta.endpoint_url)
    except ValueError as error:
        raise StoreRefusedError(
            f"S3's endpoint is no URL; set store.endpoint_url or AWS_ENDPOINT_URL: {error}"
        ) from error
    except CredentialsExpiredError as error:
        raise StoreRefusedError(str(error)) from error
    if endpoint.username or endpoint.password:
        raise StoreRefusedError(
            "S3's endpoint holds a user or password; give credentials in the environment instead"
        )
    if not (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        found = client("path")  # the names of buckets are no host names on an endpoint of one's own
    return Connection(found, session.get_credentials())
