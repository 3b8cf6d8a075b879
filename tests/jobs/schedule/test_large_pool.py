"""A schedule of many workers: an event costs no more than with few, and a clip leaves nothing."""

import gc
from collections import deque
from dataclasses import replace
from types import FunctionType, MethodType

import pytest

import jobs.schedule.pool
from jobs.schedule import events as ev
from jobs.schedule.schedule import Schedule
from jobs.settings.run_config import RunConfig
from jobs.types import ClipDone, ClipProgress, StageTiming, WorkerHeartbeat
from tests.builders.specs import spec

SPEC = spec("sunrise")


class Farm:
    """Workers that hold as many clips as they have room for, from a plan without end."""

    def __init__(self, num_workers: int) -> None:
        self.schedule = Schedule(RunConfig(), num_workers)
        self.now = 0.0
        self.num_planned = 0
        self.clips: list[deque[str]] = [deque() for _ in range(num_workers)]
        self._carry_out(self.schedule.start(self.now))
        for number in range(num_workers):
            self.handle(ev.WorkerReady(number, f"host:{number}", f"node-{number // 8}"))

    def handle(self, event: ev.Event) -> None:
        self.now += 0.001
        self._carry_out(self.schedule.handle(event, self.now))

    def end_clip(self, number: int) -> None:
        timings = (StageTiming("denoise", 0.0, self.now), StageTiming("decode", 0.0, self.now))
        done = ClipDone(self.clips[number].popleft(), "sunrise-0", 1, timings)
        self.handle(ev.ClipEnded(number, done))

    def heartbeat(self, number: int) -> ev.HeartbeatReceived:
        first, *others = self.clips[number]
        clips = [ClipProgress(first, "denoise", 1, 0.1)]
        clips += [ClipProgress(other, "queue", None, 0.1) for other in others]
        return ev.HeartbeatReceived(number, WorkerHeartbeat(tuple(clips), 1_000))

    def _carry_out(self, commands: list[ev.Command]) -> None:
        for command in commands:
            match command:
                case ev.TakeClip():
                    self.num_planned += 1
                    planned = replace(SPEC, clip_id=f"clip-{self.num_planned}")
                    self._carry_out(self.schedule.handle(ev.Planned(planned), self.now))
                case ev.StartClip(number, attempt):
                    self.clips[number].append(attempt.spec.clip_id)
                case _:
                    assert isinstance(command, ev.StartWorker), command


@pytest.fixture
def sorted_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note the number of each worker that the pool looks at."""
    numbers: list[int] = []
    look = jobs.schedule.pool.standing_of

    def noting(
        worker: jobs.schedule.pool.LoadedWorker, room: int, *, is_open: bool
    ) -> jobs.schedule.pool.Standing:
        numbers.append(worker.number)
        return look(worker, room, is_open=is_open)

    monkeypatch.setattr(jobs.schedule.pool, "standing_of", noting)
    return numbers


def test_an_event_looks_only_at_the_worker_that_it_concerns(sorted_in: list[int]) -> None:
    farm = Farm(200)
    sorted_in.clear()
    for number in (7, 150):
        farm.handle(farm.heartbeat(number))
        farm.end_clip(number)
    farm.handle(ev.Tick())
    assert set(sorted_in) == {7, 150}
    assert len(sorted_in) <= 2 * 4


def test_clips_that_have_ended_leave_nothing_in_memory() -> None:
    farm = Farm(10)
    sizes: list[int] = []
    for num_clips in (3_000, 3_000):
        for turn in range(num_clips):
            farm.end_clip(turn % 10)
        sizes.append(num_objects(farm.schedule))
    assert sizes[0] == sizes[1]


def num_objects(root: object) -> int:
    """Return the number of objects that belong to `root` alone."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) not in seen and not isinstance(one, type | FunctionType | MethodType):
            seen.add(id(one))
            waiting.extend(gc.get_referents(one))
    return len(seen)
