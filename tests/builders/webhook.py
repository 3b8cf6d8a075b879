"""A real HTTP server that takes, refuses or holds what is posted to it."""

import contextlib
import json
import threading
from collections.abc import Generator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET_PATH = "/services/T0000/B0000/planted-secret"


@dataclass
class WebhookServer:
    """A webhook on this machine.

    Args:
        statuses: the answers to the first requests; all further ones are 200.
        headers: sent with each answer.
    """

    statuses: list[int] = field(default_factory=list[int])
    headers: dict[str, str] = field(default_factory=dict[str, str])
    url: str = ""

    def __post_init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.arrived = threading.Semaphore(0)  # once for each request
        self.may_answer = threading.Event()
        self.may_answer.set()

    def wait(self) -> None:
        """Wait for one further request."""
        assert self.arrived.acquire(timeout=60)


@contextlib.contextmanager
def served(server: WebhookServer) -> Generator[WebhookServer]:
    """Let a webhook answer on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            server.bodies.append(json.loads(body))
            status = server.statuses.pop(0) if server.statuses else 200
            server.arrived.release()
            server.may_answer.wait()
            with contextlib.suppress(OSError):  # the client may have gone
                self.send_response(status)
                for name, value in server.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        listener.daemon_threads = True
        listener.block_on_close = False
        server.url = f"http://127.0.0.1:{listener.server_address[1]}{SECRET_PATH}"
        thread = threading.Thread(target=listener.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.may_answer.set()
            listener.shutdown()
            thread.join()
