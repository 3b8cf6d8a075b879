"""The stage that a clip is in, and the timings of the stages behind it, taken where the work is.

The clock and the device's synchronisation are passed in, so that a timing ends when the device is
done and not when the work was queued on it.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.types import ClipProgress, Stage, StageTiming
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


def _noop() -> None:
    pass


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
    of_part = {part: [timing for timing in parts if timing.part == part] for part in LOAD_PARTS}
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
        synchronize: waits for the device.
        monotonic: clock in seconds that never goes back, for durations.
        wall: clock in seconds since the epoch, for `started_at` only.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = _noop,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._synchronize = synchronize
        self._monotonic = monotonic
        self._wall = wall
        self._timings: list[StageTiming] = []
        self.enter("lookup")

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        return tuple(self._timings)

    def progress(self, clip_id: str) -> ClipProgress:
        """Return the clip's position at once, from any thread."""
        at = self._position
        return ClipProgress(clip_id, at.stage, at.step, self._monotonic() - at.since_s)

    def enter(self, stage: Stage) -> None:
        """Begin a stage."""
        self._enter(stage, None, self._monotonic())

    def end(self) -> None:
        """Time the present stage."""
        self._end(self._monotonic())

    @contextmanager
    def measure(self, stage: Stage) -> Generator[None]:
        """Time work of the host, without waiting for a device that may have begun the next clip.

        A stage that raises an error is timed too.
        """
        self.enter(stage)
        try:
            yield
        finally:
            self.end()

    @contextmanager
    def measure_device(self, stage: Stage) -> Generator[None]:
        """Time work of the device until the device has finished it."""
        with self.measure(stage):
            try:
                yield
            finally:
                self._synchronize()

    def steps(self) -> Callable[[int], None]:
        """Return a function to call at the end of each denoise step; each call times that step."""
        self._enter("denoise", 0, self._monotonic())

        def end_step(step: int) -> None:
            self._synchronize()
            now_s = self._monotonic()
            self._end(now_s)
            self._enter("denoise", step + 1, now_s)

        return end_step

    def add(self, *timings: StageTiming) -> None:
        """Add stages that another clock measured."""
        self._timings += timings

    def _enter(self, stage: Stage, step: int | None, now_s: float) -> None:
        self._position = _Position(stage, step, self._wall(), now_s)

    def _end(self, now_s: float) -> None:
        at = self._position
        self.add(StageTiming(at.stage, at.started_at, now_s - at.since_s, at.step))
