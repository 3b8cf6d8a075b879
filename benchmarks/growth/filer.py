"""Many small objects in the local S3 server, written by its own HTTP.

SeaweedFS keeps the objects of a bucket as files of its "filer", which needs neither signatures nor
boto3: an object takes 1 ms of client and server together, of which S3's own way takes 4. S3 returns
and lists them as its own.
"""

import http.client
import threading
import time
from typing import Self
from urllib.parse import quote

CREATED = 201
ATTEMPTS, PAUSE_S = 5, 1.0  # on busy cores its own deadlines pass
KEPT_WITH_NAMES = ("-filer.saveToFilerLimit=65536",)  # flags: objects below take no volume


class FilerWriter:
    """Writes objects below a prefix of a bucket. Threads may share it; each has a connection.

    Args:
        address: host and port of the filer.
    """

    def __init__(self, address: tuple[str, int], bucket: str, prefix: str) -> None:
        self._address = address
        self._root = f"/buckets/{bucket}/{prefix}"
        self._of_thread = threading.local()
        self._connections: list[http.client.HTTPConnection] = []

    def put(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object and replace an existing one.

        Raises:
            RuntimeError: the filer refuses it, also again.
            OSError: the filer does not answer.
        """
        connection = self._connection()
        path = quote(f"{self._root}/{key}")
        answers: list[bytes] = []
        for _ in range(ATTEMPTS):
            connection.request("PUT", path, body, {"Content-Type": content_type})
            answer = connection.getresponse()
            answers.append(answer.read())  # also so that the connection can be used again
            if answer.status == CREATED:
                return
            time.sleep(PAUSE_S)
        raise RuntimeError(f"expected {CREATED} for {path}, got {answers}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        if not hasattr(self._of_thread, "connection"):
            self._of_thread.connection = http.client.HTTPConnection(*self._address, timeout=60)
            self._connections.append(self._of_thread.connection)
        return self._of_thread.connection
