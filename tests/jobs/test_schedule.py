"""The state machine of dispatch under any order of events, without a cluster."""

from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.config import RetryPolicy, RunConfig, WorkerConfig
from jobs.errors import NoWorkersError, StoreRefusedError, TooManyFailuresError
from jobs.retry import GiveUp, Retry
from jobs.schedule import (
    ClipEnded,
    Command,
    Event,
    Halt,
    Planned,
    ReportFailure,
    Schedule,
    StartClip,
    StartWorker,
    StopWorker,
    TakeClip,
    WorkerId,
    WorkerLost,
    WorkerNotLoaded,
    WorkerReady,
)
from jobs.types import ClipDone, ClipFailed, ClipSpec
from tests.jobs.specs import spec

SPECS = [spec("sunrise", seed) for seed in range(40)]
CONFIG = RunConfig(workers=WorkerConfig(spool_clips=2), retry=RetryPolicy(max_attempts=3))


class Night:
    """A cluster on which anything may happen; it does as it is told and checks every command against what it knows.

    Args:
        chances: one number for each thing that happens, decides which; when they run out, all goes well.
    """

    def __init__(self, num_clips: int, num_workers: int, chances: list[int], config: RunConfig = CONFIG) -> None:
        self.config, self.num_workers = config, num_workers
        self.schedule = Schedule(config, num_workers)
        self.plan = iter(SPECS[:num_clips])
        self.planned: list[str] = []
        self.done: list[str] = []
        self.given_up: list[str] = []
        self.halt: Halt | None = None
        self.losses: dict[str, int] = {}  # attempts that failed, by clip
        self._chances = deque(chances)
        self._loading: list[WorkerId] = []
        self._busy: dict[WorkerId, dict[str, tuple[ClipSpec, int]]] = {}
        self._known: set[WorkerId] = set()

    def run(self) -> None:
        self._carry_out(self.schedule.start())
        for _ in range(5_000):
            if self.schedule.is_finished or self.halt:
                return
            events = list(self._possible())
            assert events, "nothing can happen any more, and the run is not finished"
            chance = self._chances.popleft() if self._chances else 0
            self._happens(events[chance % len(events)])
        raise AssertionError("the run does not end")

    def _possible(self) -> Iterator[Event]:
        """All that may happen next; what goes well comes first."""
        for worker in self._loading:
            yield WorkerReady(worker)
        for worker, clips in self._busy.items():
            for one, attempt in clips.values():
                yield ClipEnded(worker, ClipDone(one.clip_id, one.name, "", attempt, ()))
        for worker, clips in self._busy.items():
            yield WorkerLost(worker, f"host:{worker}", "killed")
            yield WorkerLost(worker, f"host:{worker}", "preempted", is_charged=False)
            for one, attempt in clips.values():
                yield ClipEnded(worker, failure(one, attempt, worker, may_pass=True))
                yield ClipEnded(worker, failure(one, attempt, worker, may_pass=False))
                yield ClipEnded(worker, replace(failure(one, attempt, worker, may_pass=True), failure_class="store"))
        for worker in self._loading:
            yield WorkerNotLoaded(worker, "slow")

    def _happens(self, event: Event) -> None:
        match event:
            case WorkerReady(worker):
                self._loading.remove(worker)
                self._busy[worker] = {}
            case ClipEnded(worker, outcome):
                del self._busy[worker][outcome.clip_id]
                if isinstance(outcome, ClipDone):
                    self.done.append(outcome.clip_id)
            case _:
                pass
        self._carry_out(self.schedule.handle(event))

    def _carry_out(self, commands: list[Command]) -> None:
        for command in commands:
            assert self.halt is None, f"{command} after the end"
            match command:
                case StartWorker(worker):
                    assert worker not in self._known, "a worker's number was used twice"
                    self._known.add(worker)
                    self._loading.append(worker)
                    assert len(self._loading) + len(self._busy) <= self.num_workers
                case StopWorker(worker):
                    assert worker in self._loading or worker in self._busy
                    self._loading = [other for other in self._loading if other != worker]
                    self._busy.pop(worker, None)
                case TakeClip():
                    taken = next(self.plan, None)
                    self.planned += [taken.clip_id] if taken else []
                    self._carry_out(self.schedule.handle(Planned(taken)))
                case StartClip(worker, one, attempt):
                    self._start(worker, one, attempt)
                case ReportFailure(failed, decision):
                    self.losses[failed.clip_id] = self.losses.get(failed.clip_id, 0) + 1
                    assert failed.attempt == self.losses[failed.clip_id], "an attempt was not counted, or twice"
                    if isinstance(decision, GiveUp):
                        self.given_up.append(failed.clip_id)
                case Halt():
                    self.halt = command

    def _start(self, worker: WorkerId, one: ClipSpec, attempt: int) -> None:
        clips = self._busy[worker]  # KeyError: a clip for a worker that has loaded nothing
        assert not any(one.clip_id in others for others in self._busy.values()), "rendered by two at once"
        assert one.clip_id not in [*self.done, *self.given_up], "rendered again after its end"
        assert 1 <= attempt <= self.config.retry.max_attempts
        assert attempt == self.losses.get(one.clip_id, 0) + 1
        is_alone = attempt > 1 or any(number > 1 for _, number in clips.values())
        assert not (is_alone and clips), "a clip that is tried again shares its worker"
        clips[one.clip_id] = one, attempt
        assert len(clips) <= self.config.workers.spool_clips + 1


def failure(one: ClipSpec, attempt: int, worker: WorkerId, *, may_pass: bool) -> ClipFailed:
    kind = "memory" if may_pass else "code"
    return ClipFailed(one.clip_id, one.name, attempt, kind, may_pass, "SomeError", "message", "", f"host:{worker}")


@settings(max_examples=10_000, deadline=None)
@given(
    num_clips=st.integers(0, 12),
    num_workers=st.integers(1, 4),
    chances=st.lists(st.integers(0, 60), max_size=60),
)
def test_no_clip_is_lost_or_rendered_twice_whatever_happens(
    num_clips: int, num_workers: int, chances: list[int]
) -> None:
    night = Night(num_clips, num_workers, chances)
    night.run()
    ended = [*night.done, *night.given_up]
    assert len(set(ended)) == len(ended)
    assert len(set(night.planned)) == len(night.planned)
    if night.halt is None:
        assert set(ended) == {one.clip_id for one in SPECS[:num_clips]}
    else:
        assert isinstance(night.halt.error, NoWorkersError | StoreRefusedError)


def started(commands: list[Command]) -> list[StartClip]:
    return [command for command in commands if isinstance(command, StartClip)]


class Taking:
    """Answers `TakeClip` at once."""

    def __init__(self, config: RunConfig = CONFIG, num_workers: int = 1) -> None:
        self.schedule, self._plan = Schedule(config, num_workers), iter(SPECS)
        self.schedule.start()

    def after(self, event: Event) -> list[Command]:
        seen: list[Command] = []
        waiting = deque(self.schedule.handle(event))
        while waiting:
            seen.append(waiting.popleft())
            if isinstance(seen[-1], TakeClip):
                waiting.extend(self.schedule.handle(Planned(next(self._plan, None))))
        return seen


def test_the_worker_with_the_least_to_do_is_given_the_next_clip() -> None:
    farm = Taking(num_workers=3)
    for worker in range(2):
        farm.after(WorkerReady(worker))
    commands = farm.after(WorkerReady(2))
    assert [command.worker for command in started(commands)] == [2, 2, 2]
    ended = started(commands)[0]
    farm.after(WorkerLost(0, "host:0", "killed"))
    again = farm.after(ClipEnded(2, ClipDone(ended.spec.clip_id, "", "", 1, ())))
    assert not started(again), "clips that are tried again come first, and wait for a worker of their own"


def test_a_preemption_is_not_charged_to_a_clip() -> None:
    farm = Taking()
    first = started(farm.after(WorkerReady(0)))
    commands = farm.after(WorkerLost(0, "host:0", "preempted", is_charged=False))
    assert not any(isinstance(command, ReportFailure) for command in commands)
    again = started(farm.after(WorkerReady(1)))
    assert [(one.spec, one.attempt) for one in again] == [(one.spec, 1) for one in first]


def test_a_worker_that_fails_three_clips_in_a_row_is_set_aside_and_its_other_clips_are_not_charged() -> None:
    config = replace(CONFIG, workers=WorkerConfig(spool_clips=3))
    farm = Taking(config)
    clips = started(farm.after(WorkerReady(0)))
    for one in clips[:2]:
        farm.after(ClipEnded(0, failure(one.spec, 1, 0, may_pass=False)))
    commands = farm.after(ClipEnded(0, failure(clips[2].spec, 1, 0, may_pass=False)))
    assert StopWorker(0, "set aside after 3 failures in a row") in commands
    assert StartWorker(1) in commands
    assert [type(command.decision) for command in commands if isinstance(command, ReportFailure)] == [GiveUp]
    assert (clips[3].spec, 1) in [(one.spec, one.attempt) for one in started(farm.after(WorkerReady(1)))]


def test_bad_rows_set_no_worker_aside() -> None:
    farm = Taking()
    running = deque(started(farm.after(WorkerReady(0))))
    for _ in range(6):
        one = running.popleft()
        refused = replace(failure(one.spec, 1, 0, may_pass=False), failure_class="request")
        commands = farm.after(ClipEnded(0, refused))
        assert not any(isinstance(command, StopWorker) for command in commands)
        running.extend(started(commands))


def test_a_run_that_gives_up_most_of_its_clips_stops() -> None:
    config = replace(CONFIG, retry=RetryPolicy(min_clips_to_stop=4, max_given_up_share=0.5, max_failures_of_worker=99))
    farm = Taking(config)
    running = deque(started(farm.after(WorkerReady(0))))
    commands: list[Command] = []
    for number in range(4):
        one = running.popleft().spec
        bad = number != 1
        ended = failure(one, 1, 0, may_pass=False) if bad else ClipDone(one.clip_id, one.name, "", 1, ())
        commands = farm.after(ClipEnded(0, ended))
        running.extend(started(commands))
    (halt,) = [command for command in commands if isinstance(command, Halt)]
    assert isinstance(halt.error, TooManyFailuresError)
    assert "3 of the first 4 clips" in str(halt.error)


def test_a_clip_that_may_pass_comes_again_before_fresh_ones() -> None:
    farm = Taking(replace(CONFIG, workers=WorkerConfig(spool_clips=1)))
    first, other = started(farm.after(WorkerReady(0)))
    commands = farm.after(ClipEnded(0, failure(first.spec, 1, 0, may_pass=True)))
    assert ReportFailure(failure(first.spec, 1, 0, may_pass=True), Retry(2)) in commands
    assert not started(commands)
    done = ClipDone(other.spec.clip_id, other.spec.name, "", 1, ())
    assert [(one.spec, one.attempt) for one in started(farm.after(ClipEnded(0, done)))] == [(first.spec, 2)]
