"""The clips in flight: the worker that holds each, its stage and step. Pure, and without torch."""

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.records.run_status import ClipInFlight
from jobs.schedule.events import Attempt
from jobs.text import duration
from jobs.types import ClipProgress, ClipSpec, Stage, WorkerHeartbeat

MAX_NAMED = 8  # clips in one log line
BEHIND_STEPS: frozenset[Stage] = frozenset({"decode", "encode", "check", "upload"})


@dataclass(eq=False)
class _Flight:
    attempt: Attempt
    worker: str
    started: float
    progress: ClipProgress | None = None


class InFlight:
    """The clips that workers hold. Times are seconds of a clock that never goes back."""

    def __init__(self) -> None:
        self._flights: dict[str, _Flight] = {}  # by clip_id
        self._lost_stages: dict[str, Stage] = {}  # by clip_id; their workers have stopped

    def start(self, worker: str, attempt: Attempt, now: float) -> None:
        self._flights[attempt.spec.clip_id] = _Flight(attempt, worker, now)
        self._lost_stages.pop(attempt.spec.clip_id, None)

    def update(self, heartbeat: WorkerHeartbeat) -> None:
        """Take over the progress of each clip. Ignore clips that have already ended."""
        for progress in heartbeat.clips:
            if progress.clip_id in self._flights:
                self._flights[progress.clip_id].progress = progress

    def worker_of(self, clip_id: str) -> str | None:
        """Return the label of the worker that holds a clip."""
        flight = self._flights.get(clip_id)
        return None if flight is None else flight.worker

    def stage_of(self, clip_id: str) -> Stage | None:
        """Return the stage of a clip at its worker's last heartbeat, also of a lost worker."""
        flight = self._flights.get(clip_id)
        if flight is None:
            return self._lost_stages.get(clip_id)
        return None if flight.progress is None else flight.progress.stage

    def end(self, clip_id: str) -> None:
        self._flights.pop(clip_id, None)

    def end_worker(self, worker: str) -> None:
        """Remove all clips of a worker that stopped."""
        for clip_id, flight in self._flights.items():
            if flight.worker == worker and flight.progress is not None:
                self._lost_stages[clip_id] = flight.progress.stage
        self._flights = {
            clip_id: flight for clip_id, flight in self._flights.items() if flight.worker != worker
        }

    def shares(self) -> Iterator[tuple[ClipSpec, float]]:
        """Yield each clip with the share of its steps that is done, 0 to 1."""
        for flight in self._flights.values():
            spec, progress = flight.attempt.spec, flight.progress
            yield spec, _share(progress, spec.num_steps)

    def clips(self, now: float) -> tuple[ClipInFlight, ...]:
        """Return the clips, oldest first."""
        flights = sorted(self._flights.values(), key=lambda flight: flight.started)
        return tuple(
            ClipInFlight(
                clip_id=flight.attempt.spec.clip_id,
                name=flight.attempt.spec.name,
                worker=flight.worker,
                stage=flight.progress.stage if flight.progress else "queue",
                step=flight.progress.step - 1 if flight.progress and flight.progress.step else None,
                num_steps=flight.attempt.spec.num_steps,
                running_s=now - flight.started,
            )
            for flight in flights
        )


def _share(progress: ClipProgress | None, num_steps: int) -> float:
    if progress is None:
        return 0.0
    if progress.stage == "denoise":
        return min((progress.step or 0) / max(num_steps, 1), 1.0)
    return 1.0 if progress.stage in BEHIND_STEPS else 0.0


def in_flight_line(clips: tuple[ClipInFlight, ...]) -> str:
    """Return one log line with the first eight clips."""
    named = [
        f"{clip.name} ({stage_text(clip)}, {duration(clip.running_s)}, {clip.worker})"
        for clip in clips[:MAX_NAMED]
    ]
    more = [f"and {len(clips) - MAX_NAMED} more"] if len(clips) > MAX_NAMED else []
    return "in flight: " + (", ".join([*named, *more]) or "nothing")


def stage_text(clip: ClipInFlight) -> str:
    """Return the stage of a clip in words, such as "denoise, step 4 of 8"."""
    if clip.stage != "denoise":
        return clip.stage
    return f"denoise, step {0 if clip.step is None else clip.step + 1} of {clip.num_steps}"
