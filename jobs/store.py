"""Where clips and records are kept: what a store promises, S3, and the choice between S3 and a folder.

Decides how S3 is spoken to and what its refusals mean. Retrying is botocore's alone, `StoreConfig.max_attempts` times;
an error that leaves this module has been through it. Credentials are found by boto3 and appear in no message.
"""

import base64
import contextlib
import hashlib
import secrets
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

import boto3
import botocore.exceptions as aws
from botocore.config import Config

from jobs.config import StoreConfig
from jobs.errors import (
    ObjectExistsError,
    ObjectMissingError,
    RefusedError,
    StoreError,
    StoreRefusedError,
    StoreUnavailableError,
)
from jobs.folder_store import FolderStore
from jobs.store_uri import S3Location, StoredObject, check_body, check_key, is_key, parse_object_uri, parse_output_uri

MAX_PUT_BYTES = 5 * 1024**3  # of one PutObject; a clip is a thousand times smaller, so nothing here is multipart

# S3's error codes, by what they mean to a user
MISSING_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
EXISTS_CODES = frozenset({"PreconditionFailed", "412"})
PASSING_CODES = frozenset({
    "SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException",
    "RequestLimitExceeded", "TooManyRequests", "OperationAborted", "ConditionalRequestConflict",
    "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",  # damaged on the way
})  # fmt: skip
REMEDIES = {
    "NoSuchBucket": "create the bucket or correct the output URI",
    "InvalidBucketName": "correct the output URI",
    "AccessDenied": "allow these credentials s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on it",
    "AllAccessDisabled": "the account that owns the bucket is disabled",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID, which the endpoint does not know",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY, which does not belong to the access key",
    "ExpiredToken": "renew the session's credentials",
    "InvalidToken": "renew AWS_SESSION_TOKEN, or unset it",
    "RequestTimeTooSkewed": "set this machine's clock",
    "PermanentRedirect": "set store.region or AWS_DEFAULT_REGION to the bucket's region",
    "AuthorizationHeaderMalformed": "set store.region or AWS_DEFAULT_REGION to the bucket's region",
    "NotImplemented": "the endpoint lacks an operation that the commit needs; use another one",
    "403": "check the credentials and their rights on the bucket",
    "400": "check the credentials, the region and the endpoint",
}
CREDENTIAL_ERRORS = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.CredentialRetrievalError, aws.ProfileNotFound,
    aws.TokenRetrievalError, aws.UnauthorizedSSOTokenError, aws.SSOTokenLoadError, aws.ConfigParseError,
)  # fmt: skip
CONNECTION_ERRORS = (
    aws.ConnectionError, aws.HTTPClientError, aws.IncompleteReadError, aws.FlexibleChecksumError,
    aws.ResponseStreamingError,
)  # fmt: skip


class Store(Protocol):
    """Objects under keys. Cheap to pickle; the other process connects for itself."""

    @property
    def uri(self) -> str: ...

    def uri_of(self, key: str) -> str: ...

    def put(self, key: str, body: bytes | Path, content_type: str) -> None:
        """Writes an object whole, in place of one that may be there."""
        ...

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        """Writes an object only if there is none; of several at once exactly one succeeds.

        Raises:
            ObjectExistsError: there is one. After an answer that was lost on the way, it may be the caller's own.
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
        stream = connect(config).get_object(Bucket=bucket, Key=key)["Body"]
        with contextlib.closing(stream):
            body = stream.read(max_bytes + 1)
    if len(body) > max_bytes:
        raise RefusedError(f"{uri} is larger than {max_bytes:,} bytes")
    return body


class S3Store:
    """A prefix of a bucket, on AWS or on any endpoint that knows `If-None-Match: *`."""

    def __init__(self, location: S3Location, config: StoreConfig) -> None:
        self.location = location
        self.config = config
        self._client = connect(config)

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
                raise StoreRefusedError(f"{body.name} has {file.tell():,} bytes; S3 takes {MAX_PUT_BYTES:,} at once")
            file.seek(0)
            self._put(key, file, digest, content_type)

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        self._put(key, body, hashlib.sha256(body).digest(), content_type, IfNoneMatch="*")

    def _put(self, key: str, body: bytes | IO[bytes], sha256: bytes, content_type: str, **condition: str) -> None:
        """Sends the digest along, by which the server refuses a body that was damaged on its way."""
        checksum = base64.b64encode(sha256).decode()
        with s3_errors("write", self.uri_of(key)):
            self._client.put_object(
                **self._address(key), Body=body, ContentType=content_type, ChecksumSHA256=checksum, **condition
            )

    def get(self, key: str) -> bytes:
        with s3_errors("read", self.uri_of(key)):
            stream = self._client.get_object(**self._address(key))["Body"]
            with contextlib.closing(stream):
                return stream.read()

    def exists(self, key: str) -> bool:
        """By listing, because the answer to HEAD does not tell a missing key from a missing bucket."""
        wanted = self._address(key)
        with s3_errors("look for", self.uri_of(key)):
            page = self._client.list_objects_v2(Bucket=wanted["Bucket"], Prefix=wanted["Key"], MaxKeys=1)
        return any(entry["Key"] == wanted["Key"] for entry in page.get("Contents", []))

    def delete(self, key: str) -> None:
        with s3_errors("remove", self.uri_of(key)):
            self._client.delete_object(**self._address(key))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        own = f"{self.location.prefix}/" if self.location.prefix else ""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.location.bucket, Prefix=own + prefix)
        with s3_errors("list", f"{self.uri}/{prefix}"):
            for page in pages:
                for entry in page.get("Contents", []):
                    key = entry["Key"].removeprefix(own)
                    if is_key(key):  # a console's "folder", or somebody else's object, is none of ours
                        yield StoredObject(key, entry["Size"], entry["LastModified"].timestamp())

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def check_access(self) -> None:
        """Writes, writes again under the condition, reads, lists and removes.

        Raises:
            StoreRefusedError: one of these is not allowed, or the endpoint ignores the condition.
            StoreUnavailableError: no answer.
        """
        key = f"access-check-{secrets.token_hex(8)}"
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
                raise StoreRefusedError(f"{self.uri}: the endpoint does not list what was written to it")
        finally:
            self.delete(key)

    def _address(self, key: str) -> dict[str, str]:
        prefix = f"{self.location.prefix}/" if self.location.prefix else ""
        return {"Bucket": self.location.bucket, "Key": prefix + check_key(key)}


def connect(config: StoreConfig) -> Any:
    """A boto3 client for S3. It is safe to use from several threads; no request is made yet.

    Raises:
        StoreRefusedError: the profile, the region or the endpoint that configuration and environment name is no good.
    """

    def client(addressing_style: str) -> Any:
        settings = Config(
            connect_timeout=config.connect_timeout_s,
            read_timeout=config.read_timeout_s,
            retries={"mode": "adaptive", "total_max_attempts": config.max_attempts},
            s3={"addressing_style": addressing_style},
        )
        return session.client("s3", endpoint_url=config.endpoint_url, config=settings)

    with s3_errors("connect to", "S3"):
        try:
            session = boto3.Session(region_name=config.region)
            found = client("auto")
            endpoint = urlsplit(found.meta.endpoint_url)
        except ValueError as error:
            raise StoreRefusedError(
                f"S3's endpoint is no URL; set store.endpoint_url or AWS_ENDPOINT_URL: {error}"
            ) from error
    if endpoint.username or endpoint.password:
        raise StoreRefusedError("S3's endpoint holds a user or password; give credentials in the environment instead")
    if (endpoint.hostname or "").endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return found
    return client("path")  # the names of buckets are no host names on an endpoint of one's own


@contextlib.contextmanager
def s3_errors(doing: str, where: str) -> Generator[None]:
    """Turns botocore's errors into the store's, with the remedy; botocore's own words stay in the cause."""
    try:
        yield
    except aws.ClientError as error:
        raise store_error(error, doing, where) from error
    except CREDENTIAL_ERRORS as error:
        raise StoreRefusedError(
            f"cannot {doing} {where}: no usable credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "a profile or a role"
        ) from error
    except CONNECTION_ERRORS as error:
        raise StoreUnavailableError(
            f"cannot {doing} {where}: no answer from the endpoint ({type(error).__name__}); check the network, "
            "store.endpoint_url and AWS_ENDPOINT_URL"
        ) from error
    except aws.BotoCoreError as error:
        raise StoreRefusedError(
            f"cannot {doing} {where}: boto3 refuses the request ({type(error).__name__})"
        ) from error


def store_error(error: aws.ClientError, doing: str, where: str) -> StoreError:
    """What an answer of S3 means."""
    code = error.response.get("Error", {}).get("Code", "unknown")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in MISSING_CODES:
        return ObjectMissingError(f"{where} is not there")
    if code in EXISTS_CODES:
        return ObjectExistsError(f"{where} is there already")
    if code in PASSING_CODES or status >= 500 or status == 429:
        return StoreUnavailableError(f"cannot {doing} {where}: the store answers {code}, also after retries; try later")
    remedy = REMEDIES.get(code) or REMEDIES.get(str(status)) or "see the store's documentation of this code"
    return StoreRefusedError(f"cannot {doing} {where}: the store answers {code}; {remedy}")
