"""The schedule by itself: no Ray, no clock, and workers that are nothing but their events."""

import time
import tracemalloc
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from jobs.schedule import events as ev
from jobs.schedule.schedule import Schedule
from jobs.settings.run_config import RunConfig, WorkerConfig
from jobs.types import ClipDone, ClipProgress, ClipSpec, ModelIdentity, StageTiming, WorkerHeartbeat
from nag.params import NagParams
from pipelines.request import GenerationRequest, SamplingParams, VideoShape

CONFIG = RunConfig(workers=WorkerConfig(recycle_after_clips=None))
WORKERS_OF_NODE = 8
SPEC = ClipSpec(
    "",
    "sunrise",
    ModelIdentity("sleeper", "package:sleeper", "r1", "float32", "saved"),
    GenerationRequest(
        "sunrise", "", VideoShape(81, 480, 832), 16.0, SamplingParams(8, 1.0, None, 0), NagParams()
    ),
)
TIMINGS = (
    StageTiming("text", 0.0, 0.1),
    *(StageTiming("denoise", 0.0, 0.2, step) for step in range(8)),
    *(StageTiming(stage, 0.0, 0.1) for stage in ("decode", "encode", "check", "upload")),
)


@dataclass(frozen=True)
class ScheduleCase:
    """So many workers with full queues.

    Args:
        num_clips: clips that end while the schedule is measured, in each of two halves.
        clip_s: seconds between two clips of one worker.
    """

    num_workers: int
    num_clips: int
    clip_s: float


class Workers:
    """A schedule, and workers that hold as many clips as they have room for."""

    def __init__(self, case: ScheduleCase) -> None:
        self._schedule = Schedule(CONFIG, case.num_workers)
        self._now = 0.0
        self._clips: list[deque[str]] = [deque() for _ in range(case.num_workers)]
        self._ids = (f"{number:016x}" for number in range(10**12))
        self._carry_out(self._schedule.start(self._now))
        for number in range(case.num_workers):
            node = f"node-{number // WORKERS_OF_NODE}"
            self.handle(ev.WorkerReady(number, f"host:{number}", node), 0.0)

    def handle(self, event: ev.Event, after_s: float) -> None:
        self._now += after_s
        self._carry_out(self._schedule.handle(event, self._now))

    def ends(self, num_clips: int) -> Iterator[ev.Event]:
        """Yield the end of a clip of each worker in turn."""
        for turn in range(num_clips):
            number = turn % len(self._clips)
            clip_id = self._clips[number].popleft()
            yield ev.ClipEnded(number, ClipDone(clip_id, "sunrise", 1, TIMINGS, memory_bytes=1))

    def heartbeats(self) -> list[ev.Event]:
        """Return a heartbeat of each worker: one clip computes, the others wait."""
        beats: list[ev.Event] = []
        for number, (first, *others) in enumerate(self._clips):
            clips = [ClipProgress(first, "denoise", 3, 0.1)]
            clips += [ClipProgress(other, "queue", None, 0.1) for other in others]
            beats.append(ev.HeartbeatReceived(number, WorkerHeartbeat(tuple(clips), 1)))
        return beats

    def _carry_out(self, commands: list[ev.Command]) -> None:
        for command in commands:
            match command:
                case ev.TakeClip():
                    planned = ev.Planned(replace(SPEC, clip_id=next(self._ids)))
                    self._carry_out(self._schedule.handle(planned, self._now))
                case ev.StartClip(number, attempt):
                    self._clips[number].append(attempt.spec.clip_id)
                case _:
                    assert isinstance(command, ev.StartWorker), command


def measure(case: ScheduleCase) -> dict[str, Any]:
    """Return CPU microseconds an event, and how time and memory grow with the clips done."""
    workers = Workers(case)

    def cpu_us(
        events: Iterable[ev.Event], num_events: int, after_s: float = case.clip_s / case.num_workers
    ) -> float:
        before_s = time.process_time()
        for event in events:
            workers.handle(event, after_s)
        return 1e6 * (time.process_time() - before_s) / num_events

    warm = case.num_workers * 4
    cpu_us(workers.ends(warm), warm)
    early_us = cpu_us(workers.ends(case.num_clips), case.num_clips)
    late_us = cpu_us(workers.ends(case.num_clips), case.num_clips)
    rounds = max(1, case.num_clips // case.num_workers)
    heartbeats = [cpu_us(workers.heartbeats(), case.num_workers) for _ in range(rounds)]
    tick_us = cpu_us([ev.Tick()] * 1_000, 1_000, after_s=0.0)
    tracemalloc.start()
    cpu_us(workers.ends(warm), warm)  # every object that lasts is traced by now
    before = tracemalloc.get_traced_memory()[0]
    cpu_us(workers.ends(warm), warm)
    grown_bytes = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return {
        **asdict(case),
        "clip_us": early_us,
        "later_clip_us": late_us,
        "heartbeat_us": sum(heartbeats) / rounds,
        "tick_us": tick_us,
        "grown_bytes_a_clip": grown_bytes / warm,
    }
