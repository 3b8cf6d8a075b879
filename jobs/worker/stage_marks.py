"""The marks that a clip's stages leave in the queue of the device's work.

The device's thread makes them while it queues the work; the clip's `StageClock` follows them in the
caller's thread, as the device passes them. So a stage is timed by the device, and the device's
thread never waits for it.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

from jobs.types import Stage, StageTiming
from pipelines.device_marks import DeviceMark


@dataclass(frozen=True)
class StageBegun:
    """The begin of a stage, or of a denoise step."""

    stage: Stage
    step: int | None
    mark: DeviceMark


@dataclass(frozen=True)
class StageEnded:
    """The end of the stage or step that began last."""

    mark: DeviceMark


class StageMarks:
    """The marks of one clip, in the order of the device's work.

    Args:
        mark: marks the end of the work that is queued now.
    """

    def __init__(self, mark: Callable[[], DeviceMark]) -> None:
        self._mark = mark
        self._events: SimpleQueue[StageBegun | StageEnded | StageTiming | None] = SimpleQueue()
        self.idle_since: DeviceMark | None = None
        self.last_begun: DeviceMark | None = None
        self.last_ended: DeviceMark | None = None

    # the device's thread

    def end_queue(self, idle_since: DeviceMark | None) -> None:
        """End the stage "queue", as soon as the device has come to this clip.

        Args:
            idle_since: the end of the device's last clip, from which it was idle if it had no work;
                None if it had no clip before.
        """
        mark = self._mark()
        self.idle_since = mark if idle_since is None else idle_since
        self._events.put(StageEnded(mark))

    @contextmanager
    def stage(self, stage: Stage) -> Generator[None]:
        """Mark the begin and the end of a stage, also of one that raises an error."""
        self._begin(stage, None, self._mark())
        try:
            yield
        finally:
            self._end(self._mark())

    def steps(self) -> Callable[[int], None]:
        """Return a function to call when a denoise step was queued; it marks the step's end."""
        self._begin("denoise", 0, self._mark())

        def end_step(step: int) -> None:
            mark = self._mark()
            self._end(mark)
            self._begin("denoise", step + 1, mark)

        return end_step

    def add(self, *timings: StageTiming) -> None:
        """Add stages that were timed elsewhere."""
        for timing in timings:
            self._events.put(timing)

    def wait_for_device(self) -> None:
        """Wait until the device has done all that is queued.

        Raises:
            RuntimeError: the device has failed.
        """
        self._mark().wait()

    def close(self) -> None:
        """End the marks, after the clip's last one or in its place. Call it from any thread."""
        self._events.put(None)

    # the caller's thread

    def __iter__(self) -> Iterator[StageBegun | StageEnded | StageTiming]:
        """Yield the marks as they are made, until they are closed."""
        return iter(self._events.get, None)

    def _begin(self, stage: Stage, step: int | None, mark: DeviceMark) -> None:
        self.last_begun = mark
        self._events.put(StageBegun(stage, step, mark))

    def _end(self, mark: DeviceMark) -> None:
        self.last_ended = mark
        self._events.put(StageEnded(mark))
