"""The parts of a model's loading: which are under way, for people, and how long each took.

Parts overlap: weights are verified while libraries are imported. Loads without torch.
"""

import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

# In the order in which they begin: the libraries are imported, the weights are verified beside it,
# their names and shapes compared with the configs', the weights read, LoRAs and guidance installed.
LoadPart = Literal["import", "verify", "shapes", "read", "install"]
LOAD_PARTS: tuple[LoadPart, ...] = get_args(LoadPart)


@dataclass(frozen=True)
class PartTiming:
    """The duration of one part of a load.

    Args:
        detail: the library that was imported; "" in other parts.
        started_at: seconds since the epoch.
    """

    part: LoadPart
    detail: str
    started_at: float
    duration_s: float


@dataclass(frozen=True)
class LoadPosition:
    """The parts of a load that are under way; none before the first and between two.

    Args:
        verified: share of the weights' bytes that are verified, from 0 to 1.
    """

    parts: tuple[LoadPart, ...] = ()
    verified: float = 0.0


NOT_LOADING = LoadPosition()


class LoadProgress:
    """The progress of one load. Any thread may report to it and read it.

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
        self._lock = threading.Lock()
        self._under_way: list[LoadPart] = []
        self._timings: list[PartTiming] = []
        self._num_bytes = 0
        self._num_verified = 0

    @contextmanager
    def part(self, part: LoadPart, detail: str = "") -> Generator[None]:
        """Time a part of the load. A part that raises an error is timed too."""
        started_at, start_s = self._wall(), self._monotonic()
        with self._lock:
            self._under_way.append(part)
        try:
            yield
        finally:
            timing = PartTiming(part, detail, started_at, self._monotonic() - start_s)
            with self._lock:
                self._under_way.remove(part)
                self._timings.append(timing)

    def expect(self, num_bytes: int) -> None:
        """Add to the bytes that are to be verified."""
        with self._lock:
            self._num_bytes += num_bytes

    def advance(self, num_bytes: int) -> None:
        """Add to the bytes that are verified."""
        with self._lock:
            self._num_verified += num_bytes

    @property
    def timings(self) -> tuple[PartTiming, ...]:
        """The parts that have ended, in the order of their ends."""
        with self._lock:
            return tuple(self._timings)

    @property
    def position(self) -> LoadPosition:
        with self._lock:
            parts: tuple[LoadPart, ...] = tuple(
                part for part in LOAD_PARTS if part in self._under_way
            )
            verified = self._num_verified / self._num_bytes if self._num_bytes else 0.0
        return LoadPosition(parts, min(verified, 1.0))
