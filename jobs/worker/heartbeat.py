"""The heartbeat of a worker, which another thread can read while the device computes.

Decides nothing; the schedule's deadlines judge heartbeats. Loads without torch.
"""

import os
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from jobs.types import WorkerHeartbeat
from jobs.worker.timing import StageClock
from pipelines.load_progress import LoadProgress

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Heartbeat:
    """The position of each clip of one worker, and of its load.

    Args:
        load: the progress of the model's loading.
    """

    def __init__(self, load: LoadProgress) -> None:
        self._load = load
        self._lock = threading.Lock()
        self._clocks: dict[str, StageClock] = {}
        self._is_draining = False

    @contextmanager
    def clip(self, clip_id: str, clock: StageClock) -> Generator[None]:
        """Report a clip's position until the worker has answered for it."""
        with self._lock:
            self._clocks[clip_id] = clock
        try:
            yield
        finally:
            with self._lock:
                self._clocks.pop(clip_id, None)

    def drain(self) -> None:
        """Note that the worker ends. Take no lock: a signal handler may interrupt its holder."""
        self._is_draining = True

    def read(self) -> WorkerHeartbeat:
        """Return the current heartbeat."""
        with self._lock:
            clocks = dict(self._clocks)
        progress = tuple(clock.progress(clip_id) for clip_id, clock in clocks.items())
        return WorkerHeartbeat(progress, memory_bytes(), self._is_draining, self._load.position)


def memory_bytes() -> int:
    """Return the host memory in use by this process.

    On Linux that is the second number in /proc/self/statm, in pages.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
