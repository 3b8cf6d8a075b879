"""A store in a bucket of S3 or of an endpoint that speaks its protocol.

Decides which requests are sent, and what proves that an object arrived. Only botocore retries,
`StoreConfig.max_attempts` times; an error that leaves this module has been retried, and
`s3_errors` has translated it. boto3 finds the credentials, `s3_credentials` looks them up again,
and no message shows them.
"""

import base64
import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from jobs.errors import ObjectMissingError, StoreError, StoreRefusedError, StoreUnavailableError
from jobs.settings.run_config import StoreConfig
from jobs.store.parts import NUM_THREADS, in_parallel, parts_of
from jobs.store.s3_access import check_access
from jobs.store.s3_connection import connect, read_parameters, sends_checksums, write_parameters
from jobs.store.s3_credentials import RotatingConnection
from jobs.store.s3_errors import s3_errors
from jobs.store.s3_listing import Page, read_page
from jobs.store.uri import (
    ACCESS_CHECK_PREFIX,
    S3Location,
    StoredObject,
    check_body,
    check_key,
    is_key,
    is_listed,
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

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        check_body(key, body)
        if isinstance(body, bytes):
            self._put(key, body, sha256 or hashlib.sha256(body).digest(), content_type)
            return
        with body.open("rb") as file:
            digest = sha256 or hashlib.file_digest(file, "sha256").digest()
            file.seek(0, os.SEEK_END)
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
        read back. An endpoint that takes no checksums gets none.
        """
        checksum = base64.b64encode(sha256).decode()
        wanted = {
            **self._address(key),
            "ContentType": content_type,
            **({"ChecksumSHA256": checksum} if sends_checksums(self._connection.client) else {}),
            **write_parameters(self.config),
            **condition,
        }

        def write(client: Any) -> Any:
            if not isinstance(body, bytes):
                body.seek(0)
            return client.put_object(**wanted, Body=body)

        verb = "create" if condition else "write"
        with s3_errors(verb, self.uri_of(key)):
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
        page = self._list(self.uri_of(key), wanted["Key"], MaxKeys=1)
        return any(stored.key == wanted["Key"] for stored in page.objects)

    def holds(self, key: str, num_bytes: int) -> bool:
        """Return True if an object of that size lies there.

        HEAD needs less of client and server than a listing, and on AWS costs a twelfth. Only a
        listing tells a missing object from a missing bucket or a gateway's answer, so that it
        decides unless HEAD finds the object in its size, also where a gateway cannot answer HEAD.
        """
        wanted = self._address(key)
        with contextlib.suppress(StoreError), s3_errors("read", self.uri_of(key)):
            found = self._connection.send(lambda client: client.head_object(**wanted))
            if found.get("ContentLength") == num_bytes:
                return True
        return is_listed(self.entries(key), key, num_bytes)

    def delete(self, key: str) -> None:
        with (
            contextlib.suppress(ObjectMissingError),
            s3_errors("remove", self.uri_of(key)),
        ):
            self._connection.send(lambda client: client.delete_object(**self._address(key)))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        return (stored for page, _ in self._pages(prefix) for stored in page)

    def entries_by_id(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects of `entries`, several pages at once if there are many."""
        pages = self._pages(prefix)
        first, is_last = next(pages)
        if is_last:
            yield from first
            return
        if not first:  # a page of other programs' objects says nothing about ours
            yield from (stored for page, _ in pages for stored in page)
            return
        listings = in_parallel(
            lambda part: list(self.entries(part)), parts_of(prefix, first), NUM_THREADS
        )
        for listing in listings:
            yield from listing

    def _pages(self, prefix: str) -> Iterator[tuple[list[StoredObject], bool]]:
        """Yield each page of a listing, at least one, and True with the last one."""
        own = f"{self.location.prefix}/" if self.location.prefix else ""
        next_page = dict[str, str]()
        while True:
            page = self._list(f"{self.uri}/{prefix}", own + prefix, **next_page)
            ours = ((stored.key.removeprefix(own), stored) for stored in page.objects)
            # leaves out a console's "folder" and other programs' objects
            yield (
                [replace(stored, key=key) for key, stored in ours if is_key(key)],
                page.next_token is None,
            )
            if page.next_token is None:
                return
            next_page = {"ContinuationToken": page.next_token}

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def _list(self, where: str, prefix: str, **wanted: str | int) -> Page:
        """Return one page of a listing.

        botocore's paginator is not used, so that credentials may change between pages.
        """
        wanted |= {"Bucket": self.location.bucket, "Prefix": prefix}
        wanted |= read_parameters(self.config)
        with s3_errors("list", where):
            page = self._connection.send(lambda client: client.list_objects_v2(**wanted))
            return read_page(page, wanted, where)

    def now(self) -> float:
        """Return the `Date` of an answer, which has whole seconds.

        Raises:
            StoreRefusedError: the answer has no date.
        """
        own = f"{self.location.prefix}/" if self.location.prefix else ""
        page = self._list(self.uri, own + ACCESS_CHECK_PREFIX, MaxKeys=1)
        if page.answered_at is None:
            raise StoreRefusedError(
                f"{self.uri}: the endpoint's answers have no Date, by which ages and leases are "
                "judged; use another endpoint"
            )
        return page.answered_at

    def check_access(self) -> None:
        asked = [f"store.{name}={value}" for name, value in self.config.of_writes.items()]
        bare = S3Store(self.location, self.config.with_bare_writes()) if asked else None
        check_access(self, bare, " ".join(asked))

    def _address(self, key: str) -> dict[str, str]:
        prefix = f"{self.location.prefix}/" if self.location.prefix else ""
        address = {"Bucket": self.location.bucket, "Key": prefix + check_key(key)}
        return address | read_parameters(self.config)
