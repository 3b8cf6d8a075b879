"""One request and its answer, carried between client and server with the chosen fault.

Carries out each fate that `proxy_faults` has chosen. Bodies stream. If the server answers before it
has asked for the promised body, the answer is passed on as the last of the connection. A client
that sends its body unasked is answered only after the body; no client of S3 needs more.
"""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass

from infra.local.http_messages import (
    Connection,
    Head,
    MessageError,
    Refusal,
    body_of,
    false_success,
)
from infra.local.proxy_faults import Fate

# S3's own refusal, and those of a gateway before it, which have no code of S3
REFUSALS = {
    Fate.SLOW_DOWN: Refusal(
        "503 Slow Down",
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>",
        "Content-Type: application/xml\r\n",
    ),
    Fate.PLAIN_404: Refusal(
        "404 Not Found", b"<html><body>not here<br></body></html>", "Content-Type: text/html\r\n"
    ),
    Fate.PLAIN_403: Refusal("403 Forbidden", b"", ""),
    Fate.REDIRECT: Refusal("302 Found", b"", "Location: https://portal.invalid/\r\n"),
}


class InjectedResetError(Exception):
    """The proxy must now reset the client's connection, on purpose."""


@dataclass(frozen=True)
class Exchange:
    """A request whose head has been read.

    Args:
        target: host and port of the server.
        is_answer_reset: called once if the answer to a request without a body has one.
    """

    request: Head
    client: Connection
    fate: Fate
    target: tuple[str, int]
    is_answer_reset: Callable[[], bool]

    async def run(self) -> bool:
        """Carry out the exchange. Return True if another request may follow on the connection.

        Raises:
            InjectedResetError: the fate ends in a reset.
        """
        if self.fate is Fate.RESET:
            raise InjectedResetError("before anything was passed on")
        if (refusal := REFUSALS.get(self.fate)) is not None:
            return await self._refuse(refusal)
        if self.fate is Fate.LIE and not self.request.has_body:
            return await self._lie(is_last=self.request.closes)
        # a connection for each request, so that a fault of one cannot reach the next
        server = Connection(*await asyncio.open_connection(*self.target))
        try:
            answer, is_whole = await self._pass_request(server)
            if self.fate is Fate.LOSE_ANSWER:
                raise InjectedResetError("the server has answered")
            if self.fate is Fate.LIE:
                return await self._lie(is_last=self.request.closes or not is_whole)
            return await self._pass_answer(server, answer, is_whole=is_whole)
        finally:
            # the answer was read; an orderly end would keep the port busy for a minute
            server.reset()
            await server.wait_closed()

    async def _refuse(self, refusal: Refusal) -> bool:
        if self.request.expects_continue:  # S3 refuses without taking the body, too
            await self.client.write(refusal.to(self.request.method, is_last=True))
            return False
        if self.request.has_body:
            async with aclosing(body_of(self.request, self.client.reader)) as pieces:
                async for _ in pieces:
                    pass
        await self.client.write(refusal.to(self.request.method, is_last=self.request.closes))
        return not self.request.closes

    async def _lie(self, *, is_last: bool) -> bool:
        await self.client.write(false_success(is_last=is_last))
        return not is_last

    async def _pass_request(self, server: Connection) -> tuple[Head, bool]:
        """Return the head of the server's answer, and True if the whole request was sent before."""
        await server.write(self.request.raw)
        if self.request.expects_continue:
            answer = await answered(server)
            if answer.status != 100:
                return answer, False
            await self.client.write(answer.raw)
        if self.request.has_body:
            async with aclosing(body_of(self.request, self.client.reader)) as pieces:
                async for piece in pieces:
                    if self.fate is Fate.RESET_MID_BODY and piece.is_content:
                        await server.write(piece.half())
                        raise InjectedResetError("within the request's body")
                    await server.write(piece.damaged() if self.fate is Fate.LIE else piece.data)
        answer = await answered(server)
        while answer.status < 200:
            answer = await answered(server)
        return answer, True

    async def _pass_answer(self, server: Connection, answer: Head, *, is_whole: bool) -> bool:
        method = self.request.method
        is_last = (
            not is_whole or self.request.closes or answer.closes or answer.ends_by_closing(method)
        )
        await self.client.write(answer.as_last() if is_last else answer.raw)
        if answer.is_answer_with_body(method):
            is_reset = not self.request.has_body and self.is_answer_reset()
            async with aclosing(body_of(answer, server.reader)) as pieces:
                async for piece in pieces:
                    if is_reset and piece.is_content:
                        await self.client.write(piece.half())
                        raise InjectedResetError("within the answer's body")
                    await self.client.write(piece.data)
        return not is_last


async def answered(server: Connection) -> Head:
    head = await server.read_head()
    if head is None:
        raise MessageError("the server ended the connection instead of an answer")
    return head
