"""A proxy before a real S3 server that injects S3's faults, for the chaos suite and the tests.

Decides when the proxy listens and which faults it counts; `proxy_faults` chooses the fault for
each request, `proxy_exchange` carries it out, and `http_messages` finds the end of a message. Heads
are passed on byte for byte: boto3 signs the `Host` that it talks to, the proxy, and the server
checks the signature against the `Host` that it receives. One thread with an event loop serves all
connections; it ends with `stop`.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Self
from urllib.parse import urlsplit

from infra.local.http_messages import Connection, Head, MessageError
from infra.local.local_process import HOST
from infra.local.proxy_exchange import REFUSALS, Exchange, InjectedResetError
from infra.local.proxy_faults import Fate, FaultDraw, Faults

__all__ = ["Faults", "FaultyProxy", "FaultyProxyError"]

BACKLOG = 512  # waiting connections; a refused one would be a fault that no test injected
CLOSE_WAIT_S = 2.0  # for a client that goes on sending after its answer
CALL_WAIT_S = 30.0  # for the loop to carry out a change; it waits for no other program
COUNTED = {
    Fate.SLOW_DOWN: "503",
    Fate.PLAIN_404: "gateway",
    Fate.PLAIN_403: "gateway",
    Fate.REDIRECT: "gateway",
    Fate.RESET: "reset",
    Fate.RESET_MID_BODY: "reset",
    Fate.LIE: "lie",
    Fate.LOSE_ANSWER: "lost_answer",
}
BROKEN = (
    OSError,
    EOFError,
    MessageError,
    asyncio.LimitOverrunError,
)  # errors that end a connection


class FaultyProxyError(Exception):
    """The proxy is not running, runs already, or has no server behind it."""


class FaultyProxy:
    """One proxy, running between `start` and `stop` or inside a `with`.

    Args:
        target_url: URL of the server, `http://host:port`.
        seed: seed of the random faults.
    """

    def __init__(self, target_url: str, seed: int = 0) -> None:
        target = urlsplit(target_url)
        if target.scheme != "http" or not target.hostname or not target.port:
            raise FaultyProxyError(
                f"the server's address must be http://host:port, not {target_url!r}"
            )
        self.endpoint_url = ""
        self._target = (target.hostname, target.port)
        self._draw = FaultDraw(seed)
        self._counts = dict.fromkeys(
            ("requests", *COUNTED.values(), "delayed", "refused", "cut"), 0
        )
        self._one_call = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._port_holder: socket.socket | None = None
        self._server: asyncio.Server | None = None  # None while it is down
        self._clients: dict[asyncio.Task[None], Connection] = {}

    @property
    def faults(self) -> Faults:
        return self._draw.faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        """Change the faults for later requests; an outage begins or ends before this returns."""
        self._call(self._change(faults))

    @property
    def counts(self) -> dict[str, int]:
        """Return the number of times that each fault was injected so far.

        `requests` counts all requests, faulty or not. `refused` counts outages, since the proxy
        does not see the connections that the kernel refuses; `cut` counts the connections that were
        open when an outage began, idle ones too.
        """
        return dict(self._counts)

    def start(self) -> None:
        """Listen on a free port of loopback."""
        if self._loop is not None:
            raise FaultyProxyError("the proxy is running already")
        self._port_holder = hold_port()
        self.endpoint_url = f"http://{HOST}:{self._port_holder.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="faulty-proxy", daemon=True
        )
        self._thread.start()
        try:
            self._call(self._change(self.faults))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Reset open connections; leave neither a thread nor a socket. May be called again."""
        if self._loop is None:
            return
        assert self._thread is not None
        assert self._port_holder is not None
        self._call(self._go_down())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._port_holder.close()
        self._loop = self._thread = self._port_holder = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _call(self, action: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine in the loop, one at a time, and wait for it."""
        with self._one_call:
            if self._loop is None:
                action.close()
                raise FaultyProxyError("the proxy is not running; start it first")
            asyncio.run_coroutine_threadsafe(action, self._loop).result(CALL_WAIT_S)

    async def _change(self, faults: Faults) -> None:
        is_new_outage = faults.is_down and not self.faults.is_down
        self._draw.change(faults)
        if faults.is_down:
            self._counts["refused"] += is_new_outage
            self._counts["cut"] += len(self._clients)
            await self._go_down()
        elif self._server is None:
            assert self._port_holder is not None
            port = self._port_holder.getsockname()[1]
            self._server = await asyncio.start_server(
                self._serve, HOST, port, backlog=BACKLOG, reuse_address=True
            )

    async def _go_down(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task, client in self._clients.items():
            client.reset()
            task.cancel()
        # the others include connections accepted a moment ago: they find no server and reset
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection of a client, request after request."""
        client = Connection(reader, writer)
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = client
        try:
            if self._server is None:
                raise InjectedResetError("the server went down")
            while (request := await client.read_head()) is not None:
                if not await self._is_kept_after(request, client):
                    break
            await client.close(CLOSE_WAIT_S)
        except (InjectedResetError, *BROKEN):
            client.reset()
        except asyncio.CancelledError:  # only `_go_down` cancels, and it has reset the connection
            pass
        finally:
            await client.wait_closed()
            del self._clients[task]

    async def _is_kept_after(self, request: Head, client: Connection) -> bool:
        """Carry out a request with its fault. Return True if another may follow it."""
        fate = self._draw.fate_of(is_put=request.method == "PUT", has_body=request.has_body)
        self._counts["requests"] += 1
        if fate in COUNTED:
            self._counts[COUNTED[fate]] += 1
        if self.faults.delay_s > 0 and fate not in {*REFUSALS, Fate.RESET}:
            self._counts["delayed"] += 1
            await asyncio.sleep(self.faults.delay_s)
        return await Exchange(request, client, fate, self._target, self._is_answer_reset).run()

    def _is_answer_reset(self) -> bool:
        is_reset = self._draw.is_reset_mid_body()
        self._counts["reset"] += is_reset
        return is_reset


def hold_port() -> socket.socket:
    """Reserve a free port on which no program listens until the caller does.

    The port is made shareable only after it was chosen: before, the kernel might choose a port that
    another holder has reserved in the same way.
    """
    holder = socket.socket()
    holder.bind((HOST, 0))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return holder
