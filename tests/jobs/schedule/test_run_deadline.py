"""The deadline of a run: clips that cannot end in time are not begun, and the rest is rendered."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import DeadlineReachedError
from jobs.schedule import events as ev
from jobs.schedule.pace import ClipSeconds, ClipSize, Pace
from jobs.schedule.schedule import Schedule
from jobs.settings.run_config import WorkerConfig
from jobs.types import ClipDone, ClipProgress, ClipSpec, Stage, StageTiming, WorkerHeartbeat
from tests.builders.specs import spec
from tests.fakes.simulated_cluster import CONFIG, SPECS, PlannedSchedule, of_type, progress, started

TICK_S = 1.0
WITHOUT_RECYCLING = replace(
    CONFIG, workers=replace(CONFIG.workers, recycle_after_clips=None, recycle_growth_bytes=None)
)


def sized(num_steps: int, seed: int) -> ClipSpec:
    one = spec("sunrise", seed)
    sampling = replace(one.request.sampling, num_inference_steps=num_steps)
    request = replace(one.request, sampling=sampling)
    return replace(one, clip_id=f"{num_steps:04}{seed:028}", request=request)


def size(num_steps: int) -> ClipSize:
    return ClipSize.of(sized(num_steps, 0))


def timings(device_s: float, rest_s: float) -> tuple[StageTiming, ...]:
    return (
        StageTiming("queue", 0.0, 1_000.0),
        StageTiming("load", 0.0, 1_000.0),
        StageTiming("denoise", 0.0, device_s / 2, 0),
        StageTiming("denoise", 0.0, device_s / 2, 1),
        StageTiming("encode", 0.0, rest_s / 2),
        StageTiming("upload", 0.0, rest_s / 2),
    )


# the expected time of a clip


def test_nothing_is_known_of_a_clip_before_one_was_measured() -> None:
    assert Pace({size(4): 10.0}, {}).of(size(4)) is None


def test_the_times_of_this_run_stand_in_place_of_those_of_earlier_ones() -> None:
    pace = Pace({size(4): 10.0}, {size(4): [ClipSeconds(50.0, 5.0)]})
    assert pace.of(size(4)) == ClipSeconds(50.0, 5.0)
    pace.learn(sized(4, 0), timings(20.0, 2.0))
    assert pace.of(size(4)) == ClipSeconds(20.0, 2.0)


def test_nine_of_ten_clips_take_no_longer_than_expected() -> None:
    pace = Pace({}, {})
    for seconds in range(1, 21):
        pace.learn(sized(4, seconds), timings(float(seconds), 1.0))
    assert pace.of(size(4)) == ClipSeconds(18.0, 1.0)


def test_the_time_of_another_size_is_scaled_by_the_predicted_times() -> None:
    pace = Pace({size(1): 1.0, size(8): 10.0, size(64): 100.0}, {})
    pace.learn(sized(1, 0), timings(1.0, 1.0))
    pace.learn(sized(8, 0), timings(30.0, 2.0))
    assert pace.of(size(64)) == ClipSeconds(300.0, 20.0), "8 steps are nearer than 1"
    assert pace.of(size(9)) is None, "not in the plan"


def test_a_clip_that_was_found_rendered_teaches_nothing() -> None:
    pace = Pace({}, {})
    pace.learn(sized(4, 0), (StageTiming("upload", 0.0, 3.0),))
    assert pace.of(size(4)) is None


# the schedule


def farm(
    device_s: float, rest_s: float = 0.0, num_clips: int = 10, spool: int = 2
) -> PlannedSchedule:
    known = {ClipSize.of(SPECS[0]): [ClipSeconds(device_s, rest_s)]}
    made = PlannedSchedule(replace(CONFIG, workers=WorkerConfig(spool_clips=spool)))
    made.schedule = Schedule(made.schedule._config, 1, pace=Pace({}, known))
    made._plan = iter(SPECS[:num_clips])
    made.schedule.start(0.0)
    return made


def test_a_worker_gets_only_the_clips_that_end_in_time() -> None:
    """Two of 10 s and 4 s for each end in 24 s; the third one of its three slots stays empty."""
    made = farm(10.0, rest_s=4.0)
    made.after(ev.TimeLeft(24.0))
    first, second = (start.attempt.spec for start in made.ready(0))
    assert not started(made.after(ev.Tick(), later_s=1.0))
    assert not started(made.done(0, first))
    made.now = 20.0
    made.done(0, second)
    assert made.schedule.is_finished, "the clips that are left would end too late"


def test_workers_that_load_are_not_waited_for_once_no_clip_would_end_in_time() -> None:
    made = farm(10.0)
    assert not of_type(made.after(ev.TimeLeft(11.0)), ev.Halt)
    assert not made.schedule.is_finished
    made.after(ev.TimeLeft(9.0, has_clips=False), later_s=2.0)
    assert made.schedule.is_finished


def test_a_clip_that_would_end_too_late_behind_others_waits_for_a_worker_without_any() -> None:
    made = farm(10.0)
    made.after(ev.TimeLeft(19.0))
    (first,) = made.ready(0)
    (second,) = started(made.done(0, first.attempt.spec))  # after 0 s instead of 10
    assert second.attempt.spec != first.attempt.spec
    assert not started(made.after(ev.Tick()))


def test_a_clip_of_unknown_length_is_started_until_the_deadline() -> None:
    made = PlannedSchedule()
    made.after(ev.TimeLeft(0.5))
    assert len(made.ready(0)) == 3


def test_queued_clips_are_recalled_once_the_clip_before_them_takes_too_long() -> None:
    made = farm(10.0)
    made.after(ev.TimeLeft(31.0))
    clips = [start.attempt.spec for start in made.ready(0)]
    assert len(clips) == 3
    places: tuple[Stage, ...] = ("denoise", "queue", "queue")
    beat = tuple(progress(one, stage, 1.0) for one, stage in zip(clips, places, strict=True))
    made.after(ev.HeartbeatReceived(0, WorkerHeartbeat(beat, 1_000)))
    assert made.after(ev.TimeLeft(31.0)) == []
    assert made.after(ev.TimeLeft(25.0), later_s=6.0) == []
    recalled = made.after(ev.TimeLeft(19.0), later_s=6.0)  # the first one should have ended
    assert recalled == [ev.RecallClip(0, clips[2].clip_id)]
    assert made.after(ev.TimeLeft(19.0)) == [], "it is asked for once"
    assert not started(made.returns(0, clips[2]))


def test_at_the_deadline_clips_in_flight_have_the_time_of_a_drain_and_no_other_begins() -> None:
    made = farm(10.0)
    made.after(ev.TimeLeft(11.0))
    (only,) = made.ready(0)
    assert made.after(ev.TimeLeft(0.0), later_s=11.0) == []
    assert made.after(ev.Tick(), later_s=1.0) == []
    (halt,) = made.after(ev.Tick(), later_s=1.5)
    assert isinstance(halt, ev.Halt)
    assert isinstance(halt.error, DeadlineReachedError)
    assert only.attempt.spec == SPECS[0]


def test_a_run_that_waits_for_devices_ends_at_the_deadline() -> None:
    made = farm(10.0)
    (halt,) = made.after(ev.TimeLeft(-0.1), later_s=60.0)
    assert isinstance(halt, ev.Halt)
    assert isinstance(halt.error, DeadlineReachedError)


# whole runs


@dataclass
class Worker:
    """A device and the clips that it renders one after the other; `rest_s` runs beside the next."""

    queue: deque[ClipSpec] = field(default_factory=deque[ClipSpec])
    begun: tuple[ClipSpec, float] | None = None  # until this moment
    encoding: list[tuple[ClipSpec, float]] = field(default_factory=list[tuple[ClipSpec, float]])


class Farm:
    """A run with a deadline in virtual time, whose clips take about as long as the last ones did.

    Args:
        plan: pairs of seconds on the device, which are the number of steps, and a count of clips.
        noise: factors of the clips' times, in turn.
    """

    def __init__(
        self, plan: Sequence[tuple[int, int]], num_workers: int, deadline_s: float,
        rest_s: float, noise: Sequence[float] = (1.0,), *, is_known: bool = True,
    ) -> None:  # fmt: skip
        self.now, self.deadline_s, self.rest_s = 0.0, deadline_s, rest_s
        self.noise = noise
        self.sizes = dict(plan)
        known = {size(steps): [ClipSeconds(float(steps), rest_s)] for steps in self.sizes}
        self.pace = Pace({size(one): float(one) for one in self.sizes}, known if is_known else {})
        self.schedule = Schedule(WITHOUT_RECYCLING, num_workers, pace=self.pace)
        self.plan = self._clips(plan)
        self.workers: dict[int, Worker] = {}
        self.begun: list[tuple[ClipSpec, float]] = []
        self.done: list[tuple[ClipSpec, float]] = []
        self.halt: ev.Halt | None = None

    @property
    def left_s(self) -> float:
        return self.deadline_s - self.now

    def fits(self, steps: int) -> bool:
        expected = self.pace.of(size(steps))
        return 0 < self.left_s >= (expected.total_s if expected else 0.0)

    def run(self) -> None:
        self._carry_out(self.schedule.start(0.0))
        self._handle(ev.TimeLeft(self.left_s))  # as the first turn of the dispatch loop
        while self.halt is None and not self.schedule.is_finished:
            self.now += TICK_S
            assert self.now < self.deadline_s + 10, "the run does not end"
            for number in list(self.workers):
                self._advance(number)
            self._handle(ev.TimeLeft(self.left_s, any(map(self.fits, self.sizes))))
            self._handle(ev.Tick())

    def _clips(self, plan: Sequence[tuple[int, int]]) -> Iterator[ClipSpec]:
        for steps, count in plan:
            for seed in range(count):
                if not self.fits(steps):
                    break
                yield sized(steps, seed)

    def _advance(self, number: int) -> None:
        worker = self.workers[number]
        if worker.begun and worker.begun[1] <= self.now:
            worker.encoding.append((worker.begun[0], worker.begun[1] + self.rest_s))
            worker.begun = None
        for one, until in [pair for pair in worker.encoding if pair[1] <= self.now]:
            worker.encoding.remove((one, until))
            self.done.append((one, until))
            steps = one.request.sampling.num_inference_steps
            done = ClipDone(one.clip_id, one.name, 1, timings(float(steps), self.rest_s))
            self._handle(ev.ClipEnded(number, done))
        self._begin(worker)
        stages: list[tuple[ClipSpec, Stage]] = [(one, "encode") for one, _ in worker.encoding]
        if worker.begun:
            stages.append((worker.begun[0], "denoise"))
        stages.extend((one, "queue") for one in worker.queue)
        clips = tuple(ClipProgress(one.clip_id, stage, None, 0.1) for one, stage in stages)
        self._handle(ev.HeartbeatReceived(number, WorkerHeartbeat(clips, 1_000)))

    def _begin(self, worker: Worker) -> None:
        if worker.begun is None and worker.queue:
            one = worker.queue.popleft()
            factor = self.noise[len(self.begun) % len(self.noise)]
            worker.begun = one, self.now + one.request.sampling.num_inference_steps * factor
            self.begun.append((one, self.now))

    def _handle(self, event: ev.Event) -> None:
        if self.halt is None:
            self._carry_out(self.schedule.handle(event, self.now))

    def _carry_out(self, commands: list[ev.Command]) -> None:
        for command in commands:
            match command:
                case ev.StartWorker(number):
                    self.workers[number] = Worker()
                    self._handle(ev.WorkerReady(number, f"host:{number}", "node-a"))
                case ev.TakeClip():
                    self._handle(ev.Planned(next(self.plan, None)))
                case ev.StartClip(number, attempt):
                    self.workers[number].queue.append(attempt.spec)
                    self._begin(self.workers[number])
                case ev.RecallClip(number, clip_id):
                    queue = self.workers[number].queue
                    for one in [one for one in queue if one.clip_id == clip_id]:
                        queue.remove(one)
                        self._handle(ev.ClipReturned(number, clip_id))
                case ev.StopWorker(number):
                    del self.workers[number]
                case ev.Halt():
                    self.halt = command
                case _:
                    raise AssertionError(command)


@settings(max_examples=60)
@given(
    steps=st.integers(2, 40),
    num_workers=st.integers(1, 3),
    deadline_s=st.integers(1, 100),
    rest_s=st.sampled_from([0.0, 1.0, 2.0]),
)
def test_known_clips_end_in_time_and_no_device_rests_while_one_would_fit(
    steps: int, num_workers: int, deadline_s: int, rest_s: float
) -> None:
    run = Farm([(steps, 1000)], num_workers, float(deadline_s), rest_s)
    run.run()
    assert run.halt is None
    assert max((end for _, end in run.done), default=0.0) <= deadline_s + TICK_S
    assert len(run.done) == len(run.begun) == len({one.clip_id for one, _ in run.done})
    most = max(0, math.floor((deadline_s - rest_s) / steps)) * num_workers
    # a device counts as busy with a clip until that is committed
    least = most - num_workers * (1 + math.ceil(rest_s / steps))
    assert least <= len(run.done) <= most


@settings(max_examples=60)
@given(
    steps=st.integers(2, 40),
    num_workers=st.integers(1, 3),
    deadline_s=st.integers(60, 120),
    noise=st.lists(st.floats(0.8, 1.3), min_size=1, max_size=7),
    is_known=st.booleans(),
)
def test_no_clip_begins_that_is_not_expected_to_end_in_time(
    steps: int, num_workers: int, deadline_s: int, noise: list[float], *, is_known: bool
) -> None:
    run = Farm([(steps, 1000)], num_workers, float(deadline_s), 1.0, noise, is_known=is_known)
    run.run()
    latest = max((moment for _, moment in run.begun), default=0.0)
    if is_known:
        assert latest + steps + 1 <= deadline_s + 2 * TICK_S
    assert run.begun, "the first clips fit in any case"


def test_shorter_clips_fill_the_time_in_which_a_longer_one_does_not_fit() -> None:
    run = Farm([(50, 3), (7, 100)], 1, 75.0, 0.0)
    run.run()
    assert [one.request.sampling.num_inference_steps for one, _ in run.done] == [50, 7, 7, 7]
    assert run.halt is None


def test_a_plan_that_ends_before_the_deadline_is_rendered_whole() -> None:
    run = Farm([(5, 10)], 2, 1000.0, 1.0)
    run.run()
    assert len(run.done) == 10
    assert run.halt is None


@pytest.mark.parametrize("is_known", [True, False])
def test_clips_longer_than_the_time_are_begun_only_if_nothing_is_known(is_known: bool) -> None:
    run = Farm([(50, 10)], 1, 30.0, 1.0, is_known=is_known)
    run.run()
    assert len(run.begun) == (0 if is_known else 1)
    assert (run.halt is None) is is_known
