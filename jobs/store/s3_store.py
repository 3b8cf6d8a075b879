"""A store in a bucket of S3 or of an endpoint that speaks its protocol.

Decides which requests are sent, and what proves that an object arrived. Only botocore retries,
`StoreConfig.max_attempts` times; an error that leaves this module has been retried, and
`s3_errors` has translated it. boto3 finds the credentials, `s3_credentials` looks them up again,
and no message shows them.
"""

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from botocore.config import Config

from jobs.config import StoreConfig
from jobs.errors import (
    CredentialsExpiredError,
    ObjectExistsError,
    ObjectMissingError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.store.s3_credentials import Connection, RotatingConnection, new_session
from jobs.store.s3_errors import s3_errors
from jobs.store.uri import (
    ACCESS_CHECK_PREFIX,
    S3Location,
    StoredObject,
    check_body,
    check_key,
    is_key,
)

# Limit of one PutObject. A clip is a thousand times smaller, so that nothing here is multipart.
MAX_PUT_BYTES = 5 * 1024**3
CHUNK_BYTES = 1 << 20


class S3Store:
    """A prefix of a bucket, on AWS or on any endpoint that supports `If-None-Match: *`.

    Threads may share one.
    """

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
        """Write an object and compare the digest in the answer with the body's.

        The digest is sent along, so that the server refuses a body that was damaged on its way. AWS
        and SeaweedFS answer with one, so that the proof costs no request; elsewhere the object is
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
                    f"the store confirmed {self.uri_of(key)}, which does not exist"
                ) from error
        if stored != checksum:
            raise StoreUnavailableError(
                f"cannot write {self.uri_of(key)}: the store confirms other bytes than were sent, "
                "damaged on the way"
            )

    def get(self, key: str) -> bytes:
        def read(client: Any) -> bytes:
            stream = client.get_object(**self._address(key))["Body"]
            with contextlib.closing(stream):
                return stream.read()

        with s3_errors("read", self.uri_of(key)):
            return self._connection.send(read)

    def chunks(self, key: str) -> Iterator[bytes]:
        with s3_errors("read", self.uri_of(key)):
            answer = self._connection.send(lambda client: client.get_object(**self._address(key)))
            with contextlib.closing(answer["Body"]) as stream:
                yield from stream.iter_chunks(CHUNK_BYTES)

    def exists(self, key: str) -> bool:
        """Return True if an object lies there.

        Lists, because the answer to HEAD does not tell a missing key from a missing bucket.
        """
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
                if is_key(key):  # leaves out a console's "folder" and other programs' objects
                    yield StoredObject(key, entry["Size"], entry["LastModified"].timestamp())
            if not page.get("IsTruncated"):
                return
            next_page = {"ContinuationToken": page["NextContinuationToken"]}

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def _list(self, where: str, **wanted: str | int) -> Any:
        """Return one page of a listing.

        botocore's paginator is not used, so that credentials may change between pages.
        """
        with s3_errors("list", where):
            return self._connection.send(
                lambda client: client.list_objects_v2(Bucket=self.location.bucket, **wanted)
            )

    def check_access(self) -> None:
        """Write, write again under the condition, read, list and remove.

        Raises:
            StoreRefusedError: one of these is not allowed, the credentials have expired, or the
                endpoint ignores the condition.
            StoreUnavailableError: no answer.
        """
        try:
            self._check_access(f"{ACCESS_CHECK_PREFIX}{secrets.token_hex(8)}")
        except CredentialsExpiredError as error:
            # no work has begun for which waiting for new credentials would be worth it
            raise StoreRefusedError(str(error)) from error

    def _check_access(self, key: str) -> None:
        self.put_if_absent(key, b"check", "text/plain")
        try:
            with contextlib.suppress(ObjectExistsError):
                self.put_if_absent(key, b"again", "text/plain")
            if self.get(key) != b"check":
                raise StoreRefusedError(
                    f"{self.uri}: the endpoint ignores If-None-Match, without which two workers "
                    "could commit one clip; use an endpoint that has conditional writes"
                )
            if not self.exists(key):
                raise StoreRefusedError(
                    f"{self.uri}: the endpoint does not list an object that was written to it"
                )
        finally:
            self.delete(key)

    def _address(self, key: str) -> dict[str, str]:
        prefix = f"{self.location.prefix}/" if self.location.prefix else ""
        return {"Bucket": self.location.bucket, "Key": prefix + check_key(key)}


def connect(config: StoreConfig) -> Connection:
    """Return a boto3 client for S3, its credentials looked up anew.

    Threads may share it. No request goes to S3 yet.

    Raises:
        StoreRefusedError: configuration or environment name an unusable profile, region or
            endpoint, or credentials that should exist are not handed out.
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
            session = new_session(config.region)
            found = client("auto")
            endpoint = urlsplit(found.meta.endpoint_url)
    except ValueError as error:
        raise StoreRefusedError(
            f"expected a URL as S3's endpoint; set store.endpoint_url or AWS_ENDPOINT_URL: {error}"
        ) from error
    except CredentialsExpiredError as error:
        raise StoreRefusedError(str(error)) from error
    if endpoint.username or endpoint.password:
        raise StoreRefusedError(
            "S3's endpoint holds a user or password; give credentials in the environment instead"
        )
    if not (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        # a private endpoint has no host name for each bucket
        found = client("path")
    return Connection(found, session.get_credentials())
