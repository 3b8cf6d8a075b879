"""The queue of a worker's device: one thread that runs one job after another.

A clip that still waits there can be recalled, so that a worker without a clip renders it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from jobs.errors import JobError

P = ParamSpec("P")
T = TypeVar("T")


class ClipRecalledError(JobError):
    """The driver has recalled a clip before the device began with it."""


class DeviceQueue:
    """The jobs of one device, in the order in which they came."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[Any]] = {}  # by clip_id
        self._recalled: set[str] = set()

    def submit(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a job that belongs to no clip, such as the loading of a model."""
        return self._thread.submit(job, *args, **kwargs)

    def run(self, clip_id: str, job: Callable[[], T]) -> T:
        """Run a clip's job once the device is free, and return its result.

        Raises:
            ClipRecalledError: the clip was recalled, and the job has not begun and never will.
        """
        with self._lock:
            if clip_id in self._recalled:
                raise ClipRecalledError(clip_id)
            future = self._thread.submit(job)
            self._waiting[clip_id] = future
        try:
            return future.result()
        except CancelledError as error:
            raise ClipRecalledError(clip_id) from error

    def recall(self, clip_id: str) -> None:
        """Recall a clip. Without effect once its job has begun."""
        with self._lock:
            self._recalled.add(clip_id)
            if clip_id in self._waiting:
                self._waiting[clip_id].cancel()

    def forget(self, clip_id: str) -> None:
        """Forget a clip that the worker has answered for; it may come again."""
        with self._lock:
            self._recalled.discard(clip_id)
            self._waiting.pop(clip_id, None)

    def close(self) -> None:
        self._thread.shutdown()
