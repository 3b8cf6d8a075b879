"""Programs that share one store and do one operation at a time, in an order that a test chooses."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from jobs.errors import ObjectExistsError, ObjectMissingError, StoreUnavailableError
from jobs.store.uri import StoredObject, is_listed

# fail: the operation does not happen, and raises an error
# lose: the operation happens, and raises an error all the same
# repeat: the operation happens, its answer is lost, and the client's second request is answered
Fault = Literal["none", "fail", "lose", "repeat"]


class CrashedError(Exception):
    """The end of a crashed program's thread."""


class Program:
    """One thread that stops before each operation on the store until the test lets it go on."""

    def __init__(self) -> None:
        self._has_stopped = threading.Semaphore(0)
        self._may_go = threading.Semaphore(0)
        self._fault: Fault = "none"
        self._is_crashed = False
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        return self._thread is not None

    def start(self, action: Callable[[], None]) -> None:
        def run() -> None:
            try:
                action()
            except CrashedError:
                pass
            finally:
                self._thread = None
                self._has_stopped.release()

        self._thread = threading.Thread(target=run)
        self._thread.start()
        self._has_stopped.acquire()

    def step(self, fault: Fault = "none") -> None:
        """Let one operation happen, and let the program run on to its next operation or its end."""
        self._fault = fault
        self._may_go.release()
        self._has_stopped.acquire()

    def crash(self) -> None:
        self._is_crashed = True
        self.step()
        self._is_crashed = False

    def before_operation(self) -> Fault:
        self._has_stopped.release()
        self._may_go.acquire()
        if self._is_crashed:
            raise CrashedError
        return self._fault


class SteppingStore:
    """A store in memory as one program sees it. Several programs share `objects`."""

    uri = "s3://renders/spring"

    def __init__(
        self, objects: dict[str, bytes], program: Program, clock: Callable[[], float]
    ) -> None:
        self.objects = objects
        self._program = program
        self._clock = clock

    def uri_of(self, key: str) -> str:
        return f"{self.uri}/{key}"

    def put(
        self, key: str, body: bytes | Path, content_type: str, sha256: bytes | None = None
    ) -> None:
        assert isinstance(body, bytes)
        self._do(lambda: self.objects.update({key: body}))

    def put_if_absent(self, key: str, body: bytes, content_type: str) -> None:
        def write() -> None:
            if key in self.objects:
                raise ObjectExistsError(f"{key} exists already")
            self.objects[key] = body

        self._do(write)

    def get(self, key: str) -> bytes:
        self._do(lambda: None)
        if key not in self.objects:
            raise ObjectMissingError(f"{key} does not exist")
        return self.objects[key]

    def chunks(self, key: str) -> Iterator[bytes]:
        yield self.get(key)

    def exists(self, key: str) -> bool:
        self._do(lambda: None)
        return key in self.objects

    def holds(self, key: str, num_bytes: int) -> bool:
        return is_listed(self.entries(key), key, num_bytes)

    def delete(self, key: str) -> None:
        self._do(lambda: self.objects.pop(key, None))

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        self._do(lambda: None)
        return iter(
            [
                StoredObject(key, len(self.objects[key]), 0.0)
                for key in sorted(self.objects)
                if key.startswith(prefix)
            ]
        )

    def keys(self, prefix: str) -> Iterator[str]:
        return (entry.key for entry in self.entries(prefix))

    def now(self) -> float:
        self._do(lambda: None)
        return self._clock()

    def check_access(self) -> None:
        self._do(lambda: None)

    def _do(self, operation: Callable[[], object]) -> None:
        fault = self._program.before_operation()
        if fault != "fail":
            operation()
        if fault in ("fail", "lose"):
            raise StoreUnavailableError("no answer")
        if fault == "repeat":
            # other programs may go on before the second request arrives
            self._program.before_operation()
            operation()
