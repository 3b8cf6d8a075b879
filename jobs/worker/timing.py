"""The stage that a clip is in, and the timings of the stages behind it.

Stages of the host are timed by the host's clock where they run, stages of the device by its marks.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.types import ClipProgress, Stage, StageTiming
from jobs.worker.stage_marks import StageBegun, StageMarks
from pipelines.device_marks import DeviceMark, DeviceTime
from pipelines.load_progress import LOAD_PARTS, LoadPart, PartTiming


@dataclass(frozen=True)
class _Position:
    """The stage of a clip. Another thread reads it, so that it is replaced as a whole.

    Args:
        step: number of finished denoise steps; None in other stages.
        started_at: seconds since the epoch at which the stage, or that step, began.
        since_s: the same moment by the clock that never goes back.
    """

    stage: Stage
    step: int | None
    started_at: float
    since_s: float


_PART_STAGES: dict[LoadPart, Stage] = {
    "import": "load_import",
    "verify": "load_verify",
    "shapes": "load_shapes",
    "read": "load_read",
    "install": "load_install",
}


def load_timings(whole: StageTiming, parts: Sequence[PartTiming]) -> tuple[StageTiming, ...]:
    """Return the timing of a load, and one of each of its parts behind it.

    Args:
        whole: the whole load.
        parts: its parts as `LoadProgress` measured them, one for each imported library.
    """
    of_part: dict[LoadPart, list[PartTiming]] = {
        part: [timing for timing in parts if timing.part == part] for part in LOAD_PARTS
    }
    return whole, *(
        StageTiming(
            _PART_STAGES[part],
            min(timing.started_at for timing in timings),
            sum(timing.duration_s for timing in timings),
        )
        for part, timings in of_part.items()
        if timings
    )


class StageClock:
    """The stages of one clip. It begins in "lookup".

    Args:
        monotonic: clock in seconds that never goes back, for durations.
        wall: clock in seconds since the epoch, for `started_at` only.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._timings: list[StageTiming] = []
        self.device_time: DeviceTime | None = None  # until the device has rendered the clip
        self.enter("lookup")

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        return tuple(self._timings)

    @property
    def stage(self) -> Stage:
        """The stage that the clip is in, or was in when it failed."""
        return self._position.stage

    def progress(self, clip_id: str) -> ClipProgress:
        """Return the clip's position at once, from any thread."""
        at = self._position
        return ClipProgress(clip_id, at.stage, at.step, self._monotonic() - at.since_s)

    def enter(self, stage: Stage) -> None:
        """Begin a stage."""
        self._position = _Position(stage, None, self._wall(), self._monotonic())

    @contextmanager
    def measure(self, stage: Stage) -> Generator[None]:
        """Time work of the host; a stage that raises an error is timed too."""
        self.enter(stage)
        try:
            yield
        finally:
            self._end(self._monotonic() - self._position.since_s)

    def follow(self, marks: StageMarks) -> None:
        """Follow the clip over the device, from its end in the queue until the marks are closed."""
        begun: DeviceMark | None = None
        ended: DeviceMark | None = None
        busy_s = 0.0
        for event in marks:
            if isinstance(event, StageTiming):
                self._timings.append(event)
                continue
            now_s = event.mark.wait()
            if isinstance(event, StageBegun):
                begun = event.mark
                started_at = self._wall() - (self._monotonic() - now_s)
                self._position = _Position(event.stage, event.step, started_at, now_s)
            elif begun is None:  # the host's queue
                self._end(now_s - self._position.since_s)
            else:
                ended = event.mark
                self._end(ended.seconds_since(begun))
                busy_s += self._timings[-1].duration_s
        if ended is not None and marks.idle_since is not None:
            all_s = ended.seconds_since(marks.idle_since)
            self.device_time = DeviceTime(busy_s, max(0.0, all_s - busy_s))

    def _end(self, duration_s: float) -> None:
        at = self._position
        self._timings.append(StageTiming(at.stage, at.started_at, duration_s, at.step))
