"""A proxy before a real S3 server that makes go wrong what goes wrong with S3, for the chaos suite and the tests.

Decides when it listens and what is counted; `proxy_faults` decides on which request a fault falls, `proxy_exchange` how
it is carried out, `http_messages` where a message ends. Heads are passed on byte for byte: boto3 signs the `Host` that
it talks to, which is the proxy's, and the server checks the signature against the `Host` that it is sent.
One thread with an event loop serves all connections; it ends with `stop`.
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from typing import Any, Self
from urllib.parse import urlsplit

from infra.local.http_messages import Connection, Head, MessageError
from infra.local.proxy_exchange import Exchange, InjectedResetError
from infra.local.proxy_faults import Fate, FaultDraw, Faults
from infra.local.s3_server import HOST

__all__ = ["Faults", "FaultyProxy", "FaultyProxyError"]

BACKLOG = 512  # connections that wait to be accepted; a flood is no fault that was asked for
CLOSE_WAIT_S = 2.0  # for a client that goes on sending after its answer
CALL_WAIT_S = 30.0  # for the loop to carry out a change, which waits for nobody outside: only a bug takes so long
COUNTED = {
    Fate.SLOW_DOWN: "503",
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
)  # what a connection may die of


class FaultyProxyError(Exception):
    """The proxy is not running, or running already, or has no server to stand before."""


class FaultyProxy:
    """One proxy, running between `start` and `stop` or inside a `with`.

    Args:
        target_url: of the server, `http://host:port`.
        seed: of what is drawn at random.
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
        """They hold from the next request on; an outage has begun, or ended, when this returns."""
        self._call(self._change(faults))

    @property
    def counts(self) -> dict[str, int]:
        """How often each fault was injected so far.

        `requests` are all that came, faulty or not. `refused` counts outages, since nobody sees the connections that
        the kernel refuses; `cut` the connections that were open when one began, idle ones among them.
        """
        return dict(self._counts)

    def start(self) -> None:
        """Listens on a free port of loopback."""
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
        """Resets what is open and leaves neither a thread nor a socket. May be called again."""
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
        """Has the loop do something, one thing at a time, and waits for it."""
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
        # among the others are connections accepted a moment ago: they find no server and reset themselves
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, request after request."""
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
        except asyncio.CancelledError:  # by `_go_down` alone, which has reset it
            pass
        finally:
            await client.wait_closed()
            del self._clients[task]

    async def _is_kept_after(self, request: Head, client: Connection) -> bool:
        """Lets happen to a request what is to happen. Whether another may follow on its connection."""
        fate = self._draw.fate_of(is_put=request.method == "PUT", has_body=request.has_body)
        self._counts["requests"] += 1
        if fate in COUNTED:
            self._counts[COUNTED[fate]] += 1
        if self.faults.delay_s > 0 and fate not in {Fate.SLOW_DOWN, Fate.RESET}:
            self._counts["delayed"] += 1
            await asyncio.sleep(self.faults.delay_s)
        return await Exchange(request, client, fate, self._target, self._is_answer_reset).run()

    def _is_answer_reset(self) -> bool:
        is_reset = self._draw.is_reset_mid_body()
        self._counts["reset"] += is_reset
        return is_reset


def hold_port() -> socket.socket:
    """A free port, kept from everybody else, on which nobody listens until the holder's owner does.

    It is set to be shared only once it is chosen: before, the kernel might choose one that another holds likewise.
    """
    holder = socket.socket()
    holder.bind((HOST, 0))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return holder
