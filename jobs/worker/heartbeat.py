"""The heartbeat of a worker, which another thread can read while the device computes.

Decides nothing; the schedule's deadlines judge heartbeats. Loads without torch.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jobs.types import ClipProgress, Stage, WorkerHeartbeat

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Heartbeat:
    """The position of each clip of one worker.

    Args:
        monotonic: clock in seconds that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._clips: dict[str, tuple[Stage, int | None, float]] = {}
        self._is_draining = False

    def move(self, clip_id: str, stage: Stage, step: int | None = None) -> None:
        """Note that a clip has entered a stage, or ended a step."""
        with self._lock:
            self._clips[clip_id] = stage, step, self._monotonic()

    def remove(self, clip_id: str) -> None:
        """Forget a clip that the worker has answered for."""
        with self._lock:
            self._clips.pop(clip_id, None)

    def drain(self) -> None:
        """Note that the worker ends. Take no lock: a signal handler may interrupt its holder."""
        self._is_draining = True

    def read(self) -> WorkerHeartbeat:
        """Return the current heartbeat."""
        with self._lock:
            now, clips = self._monotonic(), dict(self._clips)
        progress = (
            ClipProgress(clip_id, stage, step, now - at)
            for clip_id, (stage, step, at) in clips.items()
        )
        return WorkerHeartbeat(tuple(progress), memory_bytes(), self._is_draining)


def memory_bytes() -> int:
    """Return the host memory in use by this process.

    On Linux that is the second number in /proc/self/statm, in pages.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
