"""HTTP/1.1 as far as a proxy has to understand it: where a head ends, where a body ends, and a few ready answers.

Decides how a message is cut out of a stream, and nothing of what is done with it. A head is kept byte for byte, since
S3's signature covers parts of it, `Host` among them.
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
SLOW_DOWN = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n'
    b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
)


class MessageError(Exception):
    """What came is no whole HTTP/1.1 message."""


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
        """By their names in small letters."""
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
        """Of the body; None where the head does not say."""
        said = self.headers.get("content-length")
        return None if said is None else int_of(said, 10)

    @property
    def has_body(self) -> bool:
        """Whether a request with this head has one."""
        return self.is_chunked or bool(self.length_bytes)

    @property
    def expects_continue(self) -> bool:
        return self.headers.get("expect", "").lower() == "100-continue"

    @property
    def closes(self) -> bool:
        """Whether whoever sent it wants this to be the connection's last message."""
        return (
            "close" in self.headers.get("connection", "").lower()
            or b"HTTP/1.0" in self.raw.split(b"\r\n", 1)[0]
        )

    def is_answer_with_body(self, method: str) -> bool:
        """Whether this answer to a request of that method has a body."""
        return (
            method != "HEAD"
            and self.status not in BODILESS_STATUSES
            and (self.is_chunked or self.length_bytes != 0)
        )

    def ends_by_closing(self, method: str) -> bool:
        """Whether the end of this answer shows by the connection's end alone."""
        return (
            self.is_answer_with_body(method) and not self.is_chunked and self.length_bytes is None
        )

    def as_last(self) -> bytes:
        """The head, saying that the connection ends with this message."""
        return (
            self.raw
            if self.closes
            else self.raw.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"
        )


@dataclass(frozen=True)
class Piece:
    """Some bytes of a body as they are on the wire: content, or what frames it."""

    data: bytes
    is_content: bool = True

    def half(self) -> bytes:
        return self.data[: len(self.data) // 2]

    def damaged(self) -> bytes:
        """Of the same length, with another first byte."""
        return bytes([self.data[0] ^ 0xFF]) + self.data[1:] if self.is_content else self.data


class Connection:
    """A TCP connection whose writes wait until the kernel has taken everything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self._writer = writer
        writer.transport.set_write_buffer_limits(high=0)

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read_head(self) -> Head | None:
        """The next message's head. None if the other side ended the connection properly instead."""
        try:
            return Head(await self.reader.readuntil(HEAD_END))
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise MessageError("the connection ended within a head") from error
            return None

    def reset(self) -> None:
        """Ends it at once with RST, so that the other side sees an error."""
        with contextlib.suppress(OSError):  # it is closed already
            self._writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE
            )
        self._writer.transport.abort()

    async def close(self, wait_s: float) -> None:
        """Ends it after what was written has arrived, for which the other side has to be heard out first.

        Closing with bytes unread would send RST, which may overtake the answer.
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
    """The body that follows a head, piece by piece. Call it only where there is one."""
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
        while (
            head.is_chunked
        ):  # what ends a chunk is an empty line, what ends the last one too, after any trailers
            line = await reader.readuntil(b"\r\n")
            yield Piece(line, is_content=False)
            if line == b"\r\n":
                break


def int_of(said: str | bytes, base: int) -> int:
    try:
        return int(said, base)
    except ValueError as error:
        raise MessageError(f"{said!r} is no number") from error


def slow_down(method: str, *, is_last: bool) -> bytes:
    """S3's `503 SlowDown`."""
    closing = "Connection: close\r\n" if is_last else ""
    head = f"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: {len(SLOW_DOWN)}\r\n{closing}\r\n"
    return head.encode() + (b"" if method == "HEAD" else SLOW_DOWN)


def false_success(*, is_last: bool) -> bytes:
    """An answer to a PUT as S3's, of which the checksum and the ETag are those of other bytes."""
    other = b"not what was sent"
    checksum = base64.b64encode(hashlib.sha256(other).digest()).decode()
    etag = hashlib.md5(other, usedforsecurity=False).hexdigest()
    closing = "Connection: close\r\n" if is_last else ""
    return (
        f'HTTP/1.1 200 OK\r\nETag: "{etag}"\r\nx-amz-checksum-sha256: {checksum}\r\n'
        f"x-amz-checksum-type: FULL_OBJECT\r\nContent-Length: 0\r\n{closing}\r\n"
    ).encode()
