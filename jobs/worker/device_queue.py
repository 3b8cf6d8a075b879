"""The queue of a worker's device: one thread that queues the work of one clip after another.

Decides how far the host runs ahead: a clip's turn comes when the device has begun the last stage of
the clip before. So the device finds work when it ends a clip. A clip whose turn has not come can be
recalled, so that a worker without a clip renders it.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, ParamSpec, TypeVar

from jobs.errors import JobError
from jobs.failures import classify
from jobs.worker.stage_marks import StageMarks
from jobs.worker.timing import StageClock
from pipelines.device_marks import DeviceMark

P = ParamSpec("P")
T = TypeVar("T")


class ClipRecalledError(JobError):
    """The driver has recalled a clip before the device's thread began with it."""


class DeviceQueue:
    """The jobs of one device, in the order in which they came."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._lock = threading.Lock()
        self._waiting: dict[str, Future[Any]] = {}  # by clip_id
        self._recalled: set[str] = set()
        self._end: DeviceMark | None = None  # the last clip's, if it did not fail

    def submit(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue a job that belongs to no clip, such as the loading of a model."""
        return self._thread.submit(job, *args, **kwargs)

    def run(self, clip_id: str, job: Callable[[], T], marks: StageMarks, clock: StageClock) -> T:
        """Queue a clip's work on the device in its turn, and wait until the device has done it.

        Args:
            job: queues the work.
            marks: the marks that the job makes.
            clock: the clip's clock; it follows the marks.

        Raises:
            ClipRecalledError: the clip was recalled, and the job has not begun and never will.
        """
        with self._lock:
            if clip_id in self._recalled:
                raise ClipRecalledError(clip_id)
            future = self._thread.submit(self._take_turn, job, marks)
            self._waiting[clip_id] = future
        future.add_done_callback(lambda _future: marks.close())
        try:
            return _follow(future, marks, clock)
        except CancelledError as error:
            raise ClipRecalledError(clip_id) from error
        finally:
            with self._lock:
                self._waiting.pop(clip_id, None)  # with the frames

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

    def close(self) -> None:
        self._thread.shutdown()

    def _take_turn(self, job: Callable[[], T], marks: StageMarks) -> T:
        idle_since, self._end = self._end, None
        marks.end_queue(idle_since)
        try:
            result = job()
        except Exception as error:
            if classify(error)[0] == "code":  # perhaps a library's words for a device that failed
                try:
                    marks.wait_for_device()
                except RuntimeError as failure:
                    raise failure from error
            raise
        if marks.last_begun is not None:
            marks.last_begun.wait()
        self._end = marks.last_ended
        return result


def _follow(future: Future[T], marks: StageMarks, clock: StageClock) -> T:
    try:
        clock.follow(marks)
    except RuntimeError:  # the device failed
        future.result()  # if the job failed too, its error says more than that of a mark
        raise
    return future.result()
