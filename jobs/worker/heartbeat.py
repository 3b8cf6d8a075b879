"""What a worker is at, kept where another thread can read it while the device computes.

Decides nothing; `deadlines` judges it. Loads without torch.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from jobs.types import ClipProgress, Stage, WorkerHeartbeat

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Heartbeat:
    """Where each clip of one worker is.

    Args:
        monotonic: seconds, never set back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._clips: dict[str, tuple[Stage, int | None, float]] = {}
        self._is_draining = False

    def move(self, clip_id: str, stage: Stage, step: int | None = None) -> None:
        """The clip has entered a stage, or ended a step."""
        with self._lock:
            self._clips[clip_id] = stage, step, self._monotonic()

    def leave(self, clip_id: str) -> None:
        """The worker has answered for the clip."""
        with self._lock:
            self._clips.pop(clip_id, None)

    def drain(self) -> None:
        """The worker was told to end. Takes no lock: a signal's handler may interrupt whoever holds it."""
        self._is_draining = True

    def heartbeat(self) -> WorkerHeartbeat:
        with self._lock:
            now, clips = self._monotonic(), dict(self._clips)
        progress = (
            ClipProgress(clip_id, stage, step, now - at)
            for clip_id, (stage, step, at) in clips.items()
        )
        return WorkerHeartbeat(tuple(progress), memory_bytes(), self._is_draining)


def memory_bytes() -> int:
    """Of the host, in use by this process. Linux: the second number in /proc/self/statm, in pages."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
