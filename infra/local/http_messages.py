"""The part of HTTP/1.1 that a proxy needs: the ends of heads and bodies, and a few ready answers.

Cuts messages out of a stream for `proxy_exchange`. A head is kept byte for byte, since S3's
signature covers parts of it, `Host` among them.
"""

import asyncio
import base64
import contextlib
import hashlib
import socket
import struct
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import cached_property

PIECE_BYTES = 1 << 16
HEAD_END = b"\r\n\r\n"
BODILESS_STATUSES = frozenset({204, 304})
RESET_AT_CLOSE = struct.pack(
    "ii", 1, 0
)  # SO_LINGER on, 0 s: closing sends RST and drops what is not sent yet


class MessageError(Exception):
    """The stream does not hold a whole HTTP/1.1 message."""


@dataclass(frozen=True)
class Head:
    """The first line and the headers of a request or an answer, as they came."""

    raw: bytes

    @cached_property
    def first_line(self) -> list[str]:
        words = self.raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        if len(words) < 2:
            raise MessageError("the first line of a message has fewer than two words")
        return words

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers by their lower-case names."""
        lines = self.raw.decode("latin-1").split("\r\n")[1:]
        pairs = (line.partition(":") for line in lines if line)
        return {name.strip().lower(): value.strip() for name, _, value in pairs}

    @property
    def method(self) -> str:
        return self.first_line[0]

    @property
    def status(self) -> int:
        return int_of(self.first_line[1], 10)

    @property
    def is_chunked(self) -> bool:
        return self.headers.get("transfer-encoding", "").lower().endswith("chunked")

    @property
    def length_bytes(self) -> int | None:
        """The length of the body; None if the head has no `Content-Length`."""
        length = self.headers.get("content-length")
        return None if length is None else int_of(length, 10)

    @property
    def has_body(self) -> bool:
        """True if a request with this head has a body."""
        return self.is_chunked or bool(self.length_bytes)

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        """True if the sender wants this to be the last message of the connection."""
        return (
            "close" in self.headers.get("connection", "").lower()
            or b"HTTP/1.0" in self.raw.split(b"\r\n", 1)[0]
        )

    def is_answer_with_body(self, method: str) -> bool:
        """Return True if this answer to a request of that method has a body."""
        return (
            method != "HEAD"
            and self.status not in BODILESS_STATUSES
            and (self.is_chunked or self.length_bytes != 0)
        )

    def ends_by_closing(self, method: str) -> bool:
        """Return True if only the end of the connection shows the end of this answer."""
        return (
            self.is_answer_with_body(method) and not self.is_chunked and self.length_bytes is None
        )

    def as_last(self) -> bytes:
        """Return the head with `Connection: close`."""
        return (
            self.raw
            if self.closes
            else self.raw.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
        )


@dataclass(frozen=True)
class Piece:
    """Some bytes of a body as they are on the wire: content, or the framing of chunks."""

    data: bytes
    is_content: bool = True

    def half(self) -> bytes:
        return self.data[: len(self.data) // 2]

    def damaged(self) -> bytes:
        """Return content with another first byte, of the same length."""
        return bytes([self.data[0] ^ 0xFF]) + self.data[1:] if self.is_content else self.data


class Connection:
    """A TCP connection whose writes wait until the kernel has accepted everything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=0)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read_head(self) -> Head | None:
        """Return the next head, or None if the other side ended the connection properly."""
        try:
            return Head(await self.reader.readuntil(HEAD_END))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise MessageError("the connection ended within a head") from error
            return None

    def reset(self) -> None:
        """End the connection at once with RST, so that the other side sees an error."""
        with contextlib.suppress(OSError):  # it is closed already
            self._writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE
            )
        self._writer.transport.abort()

    async def close(self, wait_s: float) -> None:
        """End the connection after the written bytes have arrived and the other side has finished.

        Closing with unread bytes would send RST, which may overtake the answer.
        """
        with contextlib.suppress(OSError, TimeoutError):
            self._writer.write_eof()
            async with asyncio.timeout(wait_s):
                while await self.reader.read(PIECE_BYTES):
                    pass
        self._writer.close()

    async def wait_closed(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


async def body_of(head: Head, reader: asyncio.StreamReader) -> AsyncGenerator[Piece]:
    """Yield the body behind a head, piece by piece. Only for heads that have a body."""
    if head.length_bytes is None and not head.is_chunked:
        while data := await reader.read(PIECE_BYTES):
            yield Piece(data)
        return
    is_last = False
    while not is_last:
        left_bytes = head.length_bytes or 0
        if head.is_chunked:
            line = await reader.readuntil(b"\r\n")
            yield Piece(line, is_content=False)
            left_bytes = int_of(line.split(b";")[0], 16)
        is_last = left_bytes == 0 or not head.is_chunked
        while left_bytes > 0:
            data = await reader.read(min(left_bytes, PIECE_BYTES))
            if not data:
                raise MessageError(f"the connection ended {left_bytes:,} bytes before the body did")
            left_bytes -= len(data)
            yield Piece(data)
        # an empty line ends a chunk, and the last one after any trailers
        while head.is_chunked:
            line = await reader.readuntil(b"\r\n")
            yield Piece(line, is_content=False)
            if line == b"\r\n":
                break


def int_of(text: str | bytes, base: int) -> int:
    try:
        return int(text, base)
    except ValueError as error:
        raise MessageError(f"expected a number to base {base}, got {text!r}") from error


@dataclass(frozen=True)
class Refusal:
    """An answer that a proxy gives by itself.

    Args:
        status: status and reason, such as `503 Slow Down`.
        headers: further lines of the head, each with its end.
    """

    status: str
    body: bytes
    headers: str

    def to(self, method: str, *, is_last: bool) -> bytes:
        """Return the message that answers a request of this method."""
        closing = "Connection: close\r\n" if is_last else ""
        head = (
            f"HTTP/1.1 {self.status}\r\n{self.headers}"
            f"Content-Length: {len(self.body)}\r\n{closing}\r\n"
        )
        return head.encode() + (b"" if method == "HEAD" else self.body)


def false_success(*, is_last: bool) -> bytes:
    """Return S3's answer to a PUT, with the checksum and the ETag of other bytes."""
    other = b"not what was sent"
    checksum = base64.b64encode(hashlib.sha256(other).digest()).decode()
    etag = hashlib.md5(other, usedforsecurity=False).hexdigest()
    closing = "Connection: close\r\n" if is_last else ""
    return (
        f'HTTP/1.1 200 OK\r\nETag: "{etag}"\r\nx-amz-checksum-sha256: {checksum}\r\n'
        f"x-amz-checksum-type: FULL_OBJECT\r\nContent-Length: 0\r\n{closing}\r\n"
    ).encode()
