"""Which clips are in flight, where, and how far: what the log says every minute and `nagfarm status` shows.

Decides nothing. Loads without torch.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.records.run_status import ClipInFlight
from jobs.schedule.events import Attempt
from jobs.types import ClipProgress, WorkerHeartbeat

MAX_NAMED = 8  # in one line


@dataclass(eq=False)
class _Flight:
    attempt: Attempt
    worker: str
    started: float
    progress: ClipProgress | None = field(default=None)


class InFlight:
    """Follows the clips that workers hold.

    Args:
        monotonic: seconds, never set back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._flights: dict[str, _Flight] = {}  # by clip_id

    def start(self, worker: str, attempt: Attempt) -> None:
        self._flights[attempt.spec.clip_id] = _Flight(attempt, worker, self._monotonic())

    def hear(self, heartbeat: WorkerHeartbeat) -> None:
        for progress in heartbeat.clips:
            if progress.clip_id in self._flights:
                self._flights[progress.clip_id].progress = progress

    def end(self, clip_id: str) -> None:
        self._flights.pop(clip_id, None)

    def lose(self, worker: str) -> None:
        """The worker is gone, with all that it held."""
        self._flights = {
            clip_id: flight for clip_id, flight in self._flights.items() if flight.worker != worker
        }

    def clips(self) -> tuple[ClipInFlight, ...]:
        """The oldest first."""
        now = self._monotonic()
        flights = sorted(self._flights.values(), key=lambda flight: flight.started)
        return tuple(
            ClipInFlight(
                clip_id=flight.attempt.spec.clip_id,
                name=flight.attempt.spec.name,
                worker=flight.worker,
                stage=flight.progress.stage if flight.progress else "queue",
                step=flight.progress.step - 1 if flight.progress and flight.progress.step else None,
                num_steps=flight.attempt.spec.request.sampling.num_inference_steps,
                running_s=now - flight.started,
            )
            for flight in flights
        )

    def __str__(self) -> str:
        """One line for a log."""
        clips = self.clips()
        named = [
            f"{clip.name} ({where(clip)}, {clip.running_s:.0f} s, {clip.worker})"
            for clip in clips[:MAX_NAMED]
        ]
        more = [f"and {len(clips) - MAX_NAMED} more"] if len(clips) > MAX_NAMED else []
        return "in flight: " + (", ".join([*named, *more]) or "nothing")


def where(clip: ClipInFlight) -> str:
    if clip.stage != "denoise":
        return clip.stage
    return f"denoise, step {0 if clip.step is None else clip.step + 1} of {clip.num_steps}"
