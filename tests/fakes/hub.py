"""A hub of models on loopback, as `huggingface_hub` asks it, which counts what it gives away."""

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" * 6 + "c0ff"


class FakeHub:
    """The hub, serving between `__enter__` and `__exit__`.

    Args:
        repositories: content of each file by its name, by the id of the repository.
    """

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        self.repositories = repositories
        self.sent: Counter[str] = Counter()  # downloads of each file
        self.num_requests = 0
        self.failing: str | None = None  # the file for which it answers 400
        self.gate = threading.Event()  # downloads wait for it
        self.gate.set()
        self.reached = threading.Event()  # a download has come to the gate
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, *, is_download: bool) -> tuple[int, dict[str, str], bytes]:
        """Return the status, headers and body for a path."""
        self.num_requests += 1
        for name, files in self.repositories.items():
            if path.startswith(f"/api/models/{name}/revision/"):
                return 200, {}, json.dumps({"id": name, "sha": COMMIT, "siblings": []}).encode()
            if path.startswith(f"/api/models/{name}/tree/"):
                return 200, {}, json.dumps([entry(*item) for item in files.items()]).encode()
            prefix = f"/{name}/resolve/{COMMIT}/"
            if path.startswith(prefix) and (file := path.removeprefix(prefix)) in files:
                if is_download:
                    self.reached.set()
                    self.gate.wait()
                    self.sent[file] += 1
                if file == self.failing:
                    return 400, {}, b""
                headers = {"ETag": f'"{digest(files[file])}"', "X-Repo-Commit": COMMIT}
                return 200, headers, files[file]
        return 404, {"X-Error-Code": "RepoNotFound"}, b""

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

            def do_HEAD(self) -> None:
                self._send(is_download=False)

            def do_GET(self) -> None:
                self._send(is_download=True)

            def _send(self, *, is_download: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                status, headers, body = hub.answer(path, is_download=is_download)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if is_download:
                    self.wfile.write(body)

        return Handler


def entry(name: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(content), "oid": digest(content)}


def digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
