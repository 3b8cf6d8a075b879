"""Stage timings of one clip, taken at the place of the work.

The clock and the device's synchronisation are passed in, so that a timing ends when the device is
done and not when the work was queued on it.
"""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from jobs.types import Stage, StageTiming


def _noop(*_arguments: object) -> None:
    pass


class StageClock:
    """The timings of one clip.

    Args:
        synchronize: waits for the device.
        on_progress: called when a stage begins, and with the number of finished steps when a
            denoise step ends.
        monotonic: clock in seconds that never goes back, for durations.
        wall: clock in seconds since the epoch, for `started_at` only.
    """

    def __init__(
        self,
        synchronize: Callable[[], None] = _noop,
        on_progress: Callable[[Stage, int | None], None] = _noop,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._synchronize = synchronize
        self._on_progress = on_progress
        self._monotonic = monotonic
        self._wall = wall
        self._timings: list[StageTiming] = []

    @property
    def timings(self) -> tuple[StageTiming, ...]:
        return tuple(self._timings)

    @contextmanager
    def measure_device(self, stage: Stage) -> Generator[None]:
        """Time work of the device until the device has finished it."""
        with self.measure(stage):
            try:
                yield
            finally:
                self._synchronize()

    @contextmanager
    def measure(self, stage: Stage) -> Generator[None]:
        """Time work of the host, without waiting for a device that may have begun the next clip.

        A stage that raises an error is timed too.
        """
        self._on_progress(stage, None)
        started_at, start = self._wall(), self._monotonic()
        try:
            yield
        finally:
            self._timings.append(StageTiming(stage, started_at, self._monotonic() - start))

    def steps(self) -> Callable[[int], None]:
        """Return a function to call at the end of each denoise step; each call times that step."""
        self._on_progress("denoise", 0)
        previous = [self._wall(), self._monotonic()]

        def end_step(step: int) -> None:
            self._synchronize()
            now = self._monotonic()
            self._timings.append(StageTiming("denoise", previous[0], now - previous[1], step))
            previous[:] = [self._wall(), now]
            self._on_progress("denoise", step + 1)

        return end_step

    def add(self, stage: Stage, started_at: float, duration_s: float) -> None:
        """Add a stage that another clock measured."""
        self._timings.append(StageTiming(stage, started_at, duration_s))
