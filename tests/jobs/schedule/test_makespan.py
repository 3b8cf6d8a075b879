"""The time that a run takes on workers that become ready at any time.

No clip waits in a queue for long while a worker has none.

Each simulated worker computes one clip after another, in the order in which it got them.
"""

import heapq
from collections import deque
from dataclasses import dataclass, field, replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.schedule import events as ev
from jobs.schedule.events import Command, Event, WorkerId
from jobs.schedule.schedule import Schedule
from jobs.settings.run_config import WorkerConfig
from jobs.types import ClipDone, ClipProgress, ClipSpec, WorkerHeartbeat
from tests.fakes.simulated_cluster import CONFIG, SPECS, PlannedSchedule, of_type

CLIP_S = 60.0
ANSWER_S = 0.1  # a recalled clip comes back
HEARTBEAT_S = 5.0


@dataclass
class Device:
    """The device of a simulated worker: the clip that it computes, and those that wait for it."""

    computing: ClipSpec | None = None
    queue: deque[ClipSpec] = field(default_factory=deque[ClipSpec])

    def heartbeat(self) -> WorkerHeartbeat:
        computing = [self.computing] if self.computing else []
        clips = [ClipProgress(one.clip_id, "denoise", 1, 1.0) for one in computing]
        clips += [ClipProgress(one.clip_id, "queue", None, 1.0) for one in self.queue]
        return WorkerHeartbeat(tuple(clips), 1_000)


class TimedRun:
    """A run of equal clips by the clock.

    Args:
        ready_s: the time at which each worker is ready.
    """

    def __init__(self, num_clips: int, ready_s: list[float], spool_clips: int) -> None:
        workers = WorkerConfig(
            spool_clips=spool_clips, recycle_after_clips=None, load_timeout_s=10_000
        )
        self._schedule = Schedule(replace(CONFIG, workers=workers), len(ready_s))
        self._plan = iter(SPECS[:num_clips])
        self._ready_s = ready_s
        self._devices: dict[WorkerId, Device] = {}
        self._order = count()
        self._coming: list[tuple[float, int, Event | tuple[WorkerId, ClipSpec]]] = []
        self._now = 0.0
        self._idle_since: dict[WorkerId, float] = {}
        self.longest_idle_s = 0.0  # while another worker had a clip that waited

    def duration_s(self) -> float:
        self._carry_out(self._schedule.start(0.0))
        for number, ready_s in enumerate(self._ready_s):
            self._later(ready_s, ev.WorkerReady(number, f"host:{number}", "node"))
        self._later(HEARTBEAT_S, ev.Tick())
        while not self._schedule.is_finished:
            self._now, _, event = heapq.heappop(self._coming)
            self._let_happen(event)
            self._note_idle()
        return self._now

    def _later(self, in_s: float, event: Event | tuple[WorkerId, ClipSpec]) -> None:
        heapq.heappush(self._coming, (self._now + in_s, next(self._order), event))

    def _let_happen(self, event: Event | tuple[WorkerId, ClipSpec]) -> None:
        match event:
            case ev.WorkerReady(number):
                self._devices[number] = Device()
            case ev.ClipEnded(number):
                self._devices[number].computing = None
                self._compute_next(number)
            case ev.Tick():
                for number, device in self._devices.items():
                    self._handle(ev.HeartbeatReceived(number, device.heartbeat()))
                self._later(HEARTBEAT_S, event)
            case (number, recalled):
                if recalled not in self._devices[number].queue:
                    return
                self._devices[number].queue.remove(recalled)
                event = ev.ClipReturned(number, recalled.clip_id)
            case _:
                pass
        self._handle(event)

    def _handle(self, event: Event) -> None:
        self._carry_out(self._schedule.handle(event, self._now))

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case ev.TakeClip():
                    self._handle(ev.Planned(next(self._plan, None)))
                case ev.StartClip(number, attempt):
                    self._devices[number].queue.append(attempt.spec)
                    self._compute_next(number)
                case ev.RecallClip(number, clip_id):
                    (one,) = [one for one in SPECS if one.clip_id == clip_id]
                    self._later(ANSWER_S, (number, one))
                case _:
                    assert isinstance(command, ev.StartWorker), command

    def _compute_next(self, number: WorkerId) -> None:
        device = self._devices[number]
        if device.computing is None and device.queue:
            one = device.computing = device.queue.popleft()
            self._later(CLIP_S, ev.ClipEnded(number, ClipDone(one.clip_id, one.name, 1, ())))

    def _note_idle(self) -> None:
        idle = {number for number, device in self._devices.items() if device.computing is None}
        has_queue = any(device.queue for device in self._devices.values())
        self._idle_since = {
            number: self._idle_since.get(number, self._now) for number in idle if has_queue
        }
        for since in self._idle_since.values():
            self.longest_idle_s = max(self.longest_idle_s, self._now - since)


def shortest_s(num_clips: int, ready_s: list[float]) -> float:
    """Return the shortest time in which the workers can render so many equal clips."""
    ends = (ready + turn * CLIP_S for ready in ready_s for turn in range(1, num_clips + 1))
    return sorted(ends)[num_clips - 1]


RUNS = given(
    num_clips=st.integers(1, 40),
    ready_s=st.lists(st.floats(0, 400), min_size=1, max_size=9),
    spool_clips=st.integers(1, 4),
)


@settings(max_examples=300, deadline=None)
@RUNS
def test_a_run_ends_within_one_clip_of_the_shortest_time_and_no_worker_idles_beside_a_queue(
    num_clips: int, ready_s: list[float], spool_clips: int
) -> None:
    check_a_run(num_clips, ready_s, spool_clips)


@pytest.mark.slow
@settings(max_examples=1_000, deadline=None)
@RUNS
def test_each_of_a_thousand_runs_ends_within_one_clip_of_the_shortest_time(
    num_clips: int, ready_s: list[float], spool_clips: int
) -> None:
    check_a_run(num_clips, ready_s, spool_clips)


def check_a_run(num_clips: int, ready_s: list[float], spool_clips: int) -> None:
    run = TimedRun(num_clips, ready_s, spool_clips)
    assert run.duration_s() < shortest_s(num_clips, ready_s) + CLIP_S
    assert run.longest_idle_s <= 2 * ANSWER_S + HEARTBEAT_S


def test_a_worker_that_is_ready_late_takes_over_the_last_queued_clip() -> None:
    farm = PlannedSchedule(num_workers=2, num_clips=3)
    first, second, third = (start.attempt.spec for start in farm.ready(0))
    assert farm.ready(1) == []
    assert farm.schedule._pool.loaded[0].recalled == {third.clip_id}
    assert not of_type(farm.after(ev.Tick()), ev.RecallClip), "it is asked for once"
    (start,) = of_type(farm.returns(0, third), ev.StartClip)
    assert (start.worker, start.attempt.spec, start.attempt.number) == (1, third, 1)
    assert set(farm.in_flight(0)) == {first.clip_id, second.clip_id}
    assert of_type(farm.done(1, third), ev.RecallClip) == [ev.RecallClip(0, second.clip_id)]


def test_a_clip_that_had_begun_stays_and_the_next_worker_gets_another_one() -> None:
    farm = PlannedSchedule(num_workers=3, num_clips=6)
    clips = [start.attempt.spec for start in farm.ready(0)]
    others = [start.attempt.spec for start in farm.ready(1)]
    farm.done(0, clips[0])
    farm.done(0, clips[1])
    assert farm.schedule._pool.loaded[1].recalled == set()
    farm.ready(2)
    assert farm.schedule._pool.loaded[1].recalled == {others[2].clip_id}
    begun = WorkerHeartbeat((ClipProgress(others[2].clip_id, "denoise", 1, 1.0),), 1_000)
    farm.after(ev.HeartbeatReceived(1, begun))
    assert of_type(farm.after(ev.Tick()), ev.RecallClip) == [ev.RecallClip(1, others[1].clip_id)]


def test_an_encoded_clip_is_not_recalled_from_its_node() -> None:
    farm = PlannedSchedule(num_workers=2, num_clips=2)
    encoded = frozenset({SPECS[1].clip_id})
    assert len(farm.ready(0, "node-a", encoded)) == 2
    farm.ready(1, "node-b")
    assert farm.schedule._pool.loaded[0].recalled == set()
