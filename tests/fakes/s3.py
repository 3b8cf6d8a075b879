"""An S3 in this process, whose answers a test can change.

`FakeS3` answers the requests of an S3 client from a dictionary, and lets a test's `mutate` change
each answer. `in_process` puts it in the place of botocore's HTTP session, so that a request costs a
millisecond and no socket; `served` lets it listen on loopback. Signatures are not checked.
"""

import base64
import functools
import hashlib
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest
from botocore.awsrequest import AWSResponse
from botocore.exceptions import BotoCoreError
from botocore.httpsession import URLLib3Session
from urllib3.response import HTTPResponse

from jobs.store import s3_connection, s3_store
from jobs.store.s3_connection import connect

ENDPOINT = "http://s3.invalid:9"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKID",
    "AWS_SECRET_ACCESS_KEY": "geheim",
    "AWS_DEFAULT_REGION": "us-east-1",
}
XML = {"content-type": "application/xml"}


_one_client = functools.cache(connect)


@dataclass(frozen=True)
class Request:
    """A request: `key` is empty for a bucket's own requests.

    Args:
        is_virtual: the bucket stood in the host's name, not in the path.
    """

    method: str
    bucket: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = b""
    is_virtual: bool = False

    @property
    def is_conditional(self) -> bool:
        return "if-none-match" in self.headers

    @property
    def verb(self) -> str:
        """The word that nagfarm's errors have for the request."""
        if self.method == "PUT":
            return "create" if self.is_conditional else "write"
        return {"DELETE": "remove"}.get(self.method, "read" if self.key else "list")


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Stored:
    body: bytes
    modified_at: float


Mutate = Callable[[Request, Answer], Answer]


def unchanged(_request: Request, answer: Answer) -> Answer:
    return answer


def error(status: int, code: str) -> Answer:
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    return Answer(status, body, dict(XML))


@dataclass
class FakeS3:
    """The objects of all buckets.

    Args:
        mutate: changes an answer before it is sent; what the request did stays done.
        page_size: entries in a page of a listing.
    """

    mutate: Mutate = unchanged
    page_size: int = 1000
    now: Callable[[], float] = time.time
    objects: dict[str, Stored] = field(default_factory=dict[str, Stored])
    num_requests: int = 0
    bugs: list[Exception] = field(default_factory=list[Exception])
    _one_request: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: Request) -> Answer:
        """Carry out a request and return its answer. Threads may share the server.

        Raises:
            BotoCoreError: a fault that a test injects: the connection broke.
        """
        with self._one_request:
            self.num_requests += 1
            try:
                answer = self.carry_out(request)
                if request.method == "HEAD":
                    length = {"content-length": str(len(answer.body))}
                    answer = Answer(answer.status, headers=length)
                answer.headers.setdefault("date", formatdate(self.now(), usegmt=True))
                return self.mutate(request, answer)
            except BotoCoreError:
                raise
            except Exception as error:
                self.bugs.append(
                    error
                )  # the store would take it for an answer that boto3 cannot read
                raise

    def carry_out(self, request: Request) -> Answer:
        path = f"{request.bucket}/{request.key}"
        match request.verb:
            case "list":
                return self._list(request)
            case "read":
                found = self.objects.get(path)
                return Answer(200, found.body) if found else error(404, "NoSuchKey")
            case "remove":
                self.objects.pop(path, None)
                return Answer(204)
            case "create" if path in self.objects:
                return error(412, "PreconditionFailed")
            case _:
                self.objects[path] = Stored(request.body, self.now())
                sha256 = base64.b64encode(hashlib.sha256(request.body).digest()).decode()
                return Answer(200, headers={"x-amz-checksum-sha256": sha256})

    def _list(self, request: Request) -> Answer:
        prefix, after = (request.query.get(name, "") for name in ("prefix", "continuation-token"))
        size = min(int(request.query.get("max-keys", 1000)), self.page_size)
        within = f"{request.bucket}/{prefix}"
        keys = sorted(key for key in self.objects if key.startswith(within))
        keys = [key for key in keys if key.removeprefix(f"{request.bucket}/") > after]
        page = [(key.removeprefix(f"{request.bucket}/"), self.objects[key]) for key in keys[:size]]
        goes_on = len(keys) > size
        last = escape(page[-1][0]) if page else ""
        token = f"<NextContinuationToken>{last}</NextContinuationToken>"
        entries = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{iso(stored.modified_at)}"
            f"</LastModified><Size>{len(stored.body)}</Size></Contents>"
            for key, stored in page
        )
        body = (
            f"<ListBucketResult><Name>{request.bucket}</Name><Prefix>{quote(prefix)}</Prefix>"
            f"<EncodingType>url</EncodingType><KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(goes_on).lower()}</IsTruncated>{token if goes_on else ''}"
            f"{entries}</ListBucketResult>"
        )
        return Answer(200, body.encode(), dict(XML))


def iso(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))


def request_of(method: str, target: str, headers: Any, body: bytes) -> Request:
    parts = urlsplit(target)
    path, host = parts.path.removeprefix("/"), parts.hostname or ""
    is_virtual = host.endswith(f".{urlsplit(ENDPOINT).hostname}")
    bucket, _, key = (host.partition(".")[0], "", path) if is_virtual else path.partition("/")
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    lower = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in headers.items()
    }
    return Request(method, bucket, unquote(key), query, lower, body, is_virtual)


def bytes_of(body: Any) -> bytes:
    if body is None or isinstance(body, bytes):
        return body or b""
    return body.read()


@contextmanager
def in_process(
    server: FakeS3, monkeypatch: pytest.MonkeyPatch, **variables: str
) -> Generator[FakeS3]:
    """Answer every request of botocore in this process, until the end of the block.

    All stores share one client, which takes longer to make than fifty requests; with `variables`
    of the environment, each makes its own.
    """

    def send(_session: URLLib3Session, prepared: Any) -> AWSResponse:
        body = bytes_of(prepared.body)
        answer = server.answer(request_of(prepared.method, prepared.url, prepared.headers, body))
        raw = HTTPResponse(
            BytesIO(answer.body),
            answer.headers,
            answer.status,
            preload_content=False,
            request_method=prepared.method,
        )
        response = AWSResponse(prepared.url, answer.status, raw.headers, raw)
        if not prepared.stream_output:
            _ = response.content
        return response

    with monkeypatch.context() as patch:
        patch.setattr(URLLib3Session, "send", send)
        for name, value in (ENVIRONMENT | {"AWS_ENDPOINT_URL": ENDPOINT} | variables).items():
            patch.setenv(name, value)
        for module in () if variables else (s3_store, s3_connection):
            patch.setattr(module, "connect", _one_client)
        yield server
    assert not server.bugs


@contextmanager
def served(server: FakeS3) -> Generator[str]:
    """Listen on loopback until the end of the block; yield the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            length = int(self.headers.get("content-length", 0))
            if self.headers.get("expect", "").lower() == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(length)
            answer = server.answer(request_of(self.command, self.path, self.headers, body))
            self.send_response_only(answer.status)
            for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815 the names are http.server's

        def log_message(self, format: str, *_: object) -> None:  # noqa: A002 the base's name
            pass

        def handle_expect_100(self) -> bool:
            return True

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_address[1]}"
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()
