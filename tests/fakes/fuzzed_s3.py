"""An S3 whose answers are changed at random: status, headers, body, length, or none at all.

A change is what a broken server, a proxy, a gateway or a captive portal does. Whole listings that
leave something out are not among them: no client can tell them from true ones.
"""

import random
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from botocore.exceptions import (
    ConnectionClosedError,
    EndpointConnectionError,
    HTTPClientError,
    ReadTimeoutError,
)

from jobs.store.s3_errors import DAMAGE_CODES, EXPIRED_CODES, PASSING_CODES
from jobs.store.s3_remedies import KNOWN_CODES
from tests.fakes.s3 import Answer, FakeS3, Request, error

PAGE = b"<!DOCTYPE html><html><body><h1>Sign in</h1><br></body></html>"
BODIES = (
    b"",
    PAGE,
    b"<html><body><p>no</p></body></html>",
    b'{"error": "no"}',
    b"\x1b]0;x\x07" + bytes(range(256)),
    b"<Error><Message>no</Message></Error>",
    b"<Error><Code>No\x1b[2J</Code></Error>",
    b"<Error><Code></Code></Error>",
    b"<a>" * 3000,
    b"null",
    b"{}",
)
CODES = sorted(
    {"NoSuchKey", "PreconditionFailed", "NeverHeardOf"}
    | PASSING_CODES
    | DAMAGE_CODES
    | EXPIRED_CODES
    | KNOWN_CODES
)
STATUSES = (
    *(404, 404, 404, 412, 412, 403, 403, 302, 302, 200, 200, 200),  # the more harmful, more often
    *(201, 204, 206, 301, 303, 304, 307, 308, *range(400, 419), 429, 451),
    *(500, 501, 502, 503, 504, 507, 520, 599),
)
HEADERS = (
    ("content-length", "7"),
    ("content-length", "99999999"),
    ("content-length", "none"),
    ("content-encoding", "gzip"),
    ("content-type", "text/html"),
    ("transfer-encoding", "chunked"),
    ("date", "yesterday"),
    ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("etag", '"'),
    ("last-modified", "later"),
    ("location", "http://[/"),
    ("location", "https://user:geheim@portal.example/\x1b"),
    ("retry-after", "-1"),
    ("x-amz-bucket-region", "no region!"),
    ("x-amz-bucket-region", "eu-west-1"),
    ("x-amz-checksum-crc32", "AAAAAA=="),
    ("x-amz-checksum-sha256", "?"),
    ("x-amz-error-code", "NoSuchKey"),
)
ELEMENT = re.compile(
    rb"<(Key|Size|LastModified|IsTruncated|Prefix|NextContinuationToken|Code|EncodingType)>"
    rb"([^<]*)</\1>"
)
JUNK = (
    b"",
    b"-1",
    b"true",
    b"99999999999999999999999",
    b"\xff",
    b"&amp;",
    b"../x",
    b"1e9",
    b"None",
)


Change = Callable[["FuzzedS3", Request, Answer], Answer]


@dataclass
class FuzzedS3(FakeS3):
    """A `FakeS3` whose answers are changed.

    Args:
        share: share of the listings that are changed, 0 to 0.5; of other answers twice as many.
    """

    seed: int = 0
    share: float = 0.0
    changes: Counter[str] = field(default_factory=Counter[str])
    _kept: dict[str, tuple[Change, int]] = field(default_factory=dict[str, "tuple[Change, int]"])
    last_changes: deque[str] = field(default_factory=lambda: deque[str](maxlen=12))
    _others: deque[tuple[Request, Answer]] = field(
        default_factory=lambda: deque[tuple[Request, Answer]](maxlen=20)
    )

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def carry_out(self, request: Request) -> Answer:
        change = self._choose(request)
        if change is None:
            answer = super().carry_out(request)
            self._others.append((request, answer))
            return answer
        is_done = self._random.random() < 0.5  # else the fault lies before the store
        answer = super().carry_out(request) if is_done else Answer(200)
        name = change.__name__.removeprefix("_")
        self.changes[name] += 1
        self.last_changes.append(f"{request.verb} {request.key or request.query}: {name}")
        changed = change(self, request, answer)
        self.last_changes[-1] += f" -> {changed.status} {changed.body[:60]!r} {changed.headers}"
        return changed

    def _choose(self, request: Request) -> "Change | None":
        """Return the change of an answer; a portal or a broken gateway stays for some requests."""
        kept, num_left = self._kept.pop(request.verb, (None, 0))
        share = self.share if request.verb == "list" else 2 * self.share  # most requests list
        if kept is None and self._random.random() < share:
            kept, num_left = self._random.choice(CHANGES), self._random.choice((0, 0, 1, 6))
        if kept is not None and num_left:
            self._kept[request.verb] = kept, num_left - 1
        return kept if self.share else None

    def _break(self, request: Request, answer: Answer) -> Answer:
        raise self._random.choice(
            (
                ConnectionClosedError(endpoint_url="x"),
                ReadTimeoutError(endpoint_url="x"),
                EndpointConnectionError(endpoint_url="x"),
                HTTPClientError(error="x"),
            )
        )

    def _status(self, request: Request, answer: Answer) -> Answer:
        return Answer(self._random.choice(STATUSES), answer.body, answer.headers)

    def _plain_status(self, request: Request, answer: Answer) -> Answer:
        return Answer(self._random.choice(STATUSES), self._random.choice(BODIES))

    def _body(self, request: Request, answer: Answer) -> Answer:
        return Answer(answer.status, self._random.choice(BODIES), answer.headers)

    def _refusal(self, request: Request, answer: Answer) -> Answer:
        return error(self._random.choice(STATUSES), self._random.choice(CODES))

    def _header(self, request: Request, answer: Answer) -> Answer:
        changed = dict(self._random.choices(HEADERS, k=self._random.randint(1, 3)))
        return Answer(answer.status, answer.body, answer.headers | changed)

    def _no_headers(self, request: Request, answer: Answer) -> Answer:
        return Answer(answer.status, answer.body, {"date": ""})

    def _half(self, request: Request, answer: Answer) -> Answer:
        end = self._random.randrange(len(answer.body) + 1)
        says = {"content-length": str(len(answer.body))} if self._random.random() < 0.5 else {}
        return Answer(answer.status, answer.body[:end], answer.headers | says)

    def _byte(self, request: Request, answer: Answer) -> Answer:
        body = bytearray(answer.body or b"x")
        body[self._random.randrange(len(body))] = self._random.randrange(256)
        return Answer(answer.status, bytes(body), answer.headers)

    def _element(self, request: Request, answer: Answer) -> Answer:
        found = list(ELEMENT.finditer(answer.body))
        if not found:
            return self._body(request, answer)
        one = self._random.choice(found)
        name, junk = one[1], self._random.choice(JUNK)
        new = b"" if self._random.random() < 0.5 else b"<%b>%b</%b>" % (name, junk, name)
        body = answer.body[: one.start()] + new + answer.body[one.end() :]
        return Answer(answer.status, body, answer.headers)

    def _others_answer(self, request: Request, answer: Answer) -> Answer:
        """Answer with what another request got; the same request might get an older truth."""
        other = [
            got
            for asked, got in self._others
            if (asked.key, asked.query) != (request.key, request.query)
        ]
        return self._random.choice(other) if other else self._body(request, answer)


CHANGES: tuple[Change, ...] = (
    FuzzedS3._break,
    FuzzedS3._status,
    FuzzedS3._plain_status,
    FuzzedS3._body,
    FuzzedS3._refusal,
    FuzzedS3._header,
    FuzzedS3._no_headers,
    FuzzedS3._half,
    FuzzedS3._byte,
    FuzzedS3._element,
    FuzzedS3._others_answer,
)
