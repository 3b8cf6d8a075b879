"""The schedule under any order of events, on a simulated cluster."""

from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import (
    ModelNotLoadedError,
    NoWorkersError,
    StoppedError,
    StoreRefusedError,
    StoreUnavailableError,
    TooManyFailuresError,
)
from jobs.schedule.events import (
    ClipEnded,
    Command,
    Halt,
    HeartbeatReceived,
    NodesDraining,
    Planned,
    PlanWaits,
    ReportFailure,
    RoomSeen,
    StartWorker,
    StopRequested,
    StopWorker,
    TakeClip,
    Tick,
    WorkerLost,
    WorkerNotLoaded,
    WorkerPlaced,
    WorkerReady,
)
from jobs.schedule.retry import Quarantine, Retry, Wait
from jobs.schedule.schedule import Schedule
from jobs.settings.run_config import RetryPolicy, WorkerConfig
from jobs.types import ClipDone, ClipProgress, Stage, StageTiming, WorkerHeartbeat
from pipelines.lora_choice import LoraChoice
from tests.fakes.simulated_cluster import (
    CONFIG,
    NODES,
    SPECS,
    PlannedSchedule,
    SimulatedCluster,
    failure,
    of_type,
    progress,
    started,
    with_retry,
)

ORDERS = given(
    num_clips=st.integers(0, 12),
    num_workers=st.integers(1, 4),
    choices=st.lists(st.integers(0, 100), max_size=60),
)


@settings(max_examples=2_500, deadline=None)
@ORDERS
def test_no_order_of_events_loses_a_clip_or_renders_it_twice(
    num_clips: int, num_workers: int, choices: list[int]
) -> None:
    check_an_order(num_clips, num_workers, choices)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@ORDERS
def test_no_order_of_ten_thousand_loses_a_clip_or_renders_it_twice(
    num_clips: int, num_workers: int, choices: list[int]
) -> None:
    check_an_order(num_clips, num_workers, choices)


def check_an_order(num_clips: int, num_workers: int, choices: list[int]) -> None:
    waits_each = (0, 3, 0, 2)[num_clips % 4]
    cluster = SimulatedCluster(num_clips, num_workers, choices, waits_each=waits_each)
    cluster.run()
    ended = [*cluster.done, *cluster.quarantined]
    assert len(set(ended)) == len(ended)
    assert len(set(cluster.planned)) == len(cluster.planned)
    if cluster.halt is None:
        assert set(ended) == {one.clip_id for one in SPECS[:num_clips]}
    else:
        assert isinstance(
            cluster.halt.error,
            NoWorkersError | StoppedError | StoreRefusedError | TooManyFailuresError,
        )
        assert cluster.stop_at is not None or not isinstance(cluster.halt.error, StoppedError)


# slots


def test_the_least_busy_worker_gets_the_next_clip() -> None:
    farm = PlannedSchedule(num_workers=3)
    farm.ready(0)
    farm.ready(1)
    assert [start.worker for start in farm.ready(2)] == [2, 2, 2]


def test_a_suspect_gets_a_worker_to_itself_while_the_others_go_on() -> None:
    farm = PlannedSchedule(num_workers=3)
    lost = farm.ready(0)[0].attempt
    farm.ready(1)
    busy = farm.ready(2)
    farm.after(WorkerLost(0, "killed"))
    placed = farm.ready(3)
    assert len(placed) == 1
    assert placed[0].attempt.spec == lost.spec
    ended = started(farm.done(2, busy[0].attempt.spec))
    assert not any(start.attempt.is_suspect for start in ended), "the suspect shares a worker"


def test_a_single_worker_finishes_its_other_clips_before_it_retries_one() -> None:
    farm = PlannedSchedule(replace(CONFIG, workers=WorkerConfig(spool_clips=1)))
    first, other = (start.attempt for start in farm.ready(0))
    commands = farm.fails(0, first, "clip")
    assert not started(commands)
    (again,) = started(farm.done(0, other.spec))
    assert (again.attempt.spec, again.attempt.number, again.attempt.uses_exact_attention) == (
        first.spec,
        2,
        True,
    )


def test_a_worker_that_only_uploads_takes_a_suspect() -> None:
    """A clip in upload is never charged with the loss of its worker."""
    farm = PlannedSchedule(num_workers=2)
    lost = farm.ready(0)[0].attempt.spec
    first, second, third = (start.attempt.spec for start in farm.ready(1))
    farm.after(WorkerLost(0, "killed"))
    farm.after(
        HeartbeatReceived(
            1,
            heartbeat(
                progress(first, "upload", 1),
                progress(second, "upload", 1),
                progress(third, "denoise", 1),
            ),
        )
    )
    assert not started(farm.after(Tick()))
    assert [start.attempt.spec for start in started(farm.done(1, third))] == [lost]


# failures


def test_a_preemption_is_not_charged_to_a_clip() -> None:
    farm = PlannedSchedule()
    first = farm.ready(0)
    commands = farm.after(WorkerLost(0, "preempted", is_preempted=True))
    assert not of_type(commands, ReportFailure)
    again = farm.ready(1)
    assert [start.attempt.spec for start in again] == [start.attempt.spec for start in first]
    assert not any(start.attempt.is_suspect for start in again)


def test_a_worker_is_replaced_after_three_failures_in_a_row_and_its_other_clip_is_not_charged() -> (
    None
):
    farm = PlannedSchedule(replace(CONFIG, workers=WorkerConfig(spool_clips=3)))
    clips = [start.attempt for start in farm.ready(0)]
    for attempt in clips[:2]:
        farm.fails(0, attempt, "code")
    commands = farm.fails(0, clips[2], "code")
    assert StopWorker(0, "replaced after 3 failures in a row") in commands
    assert StartWorker(1) in commands
    assert [type(command.decision) for command in of_type(commands, ReportFailure)] == [Quarantine]
    again = [start.attempt for start in farm.ready(1)]
    assert clips[3].spec in [attempt.spec for attempt in again if not attempt.is_suspect]


def test_bad_rows_do_not_replace_a_worker() -> None:
    farm = PlannedSchedule()
    running = deque(farm.ready(0))
    for _ in range(6):
        commands = farm.fails(0, running.popleft().attempt, "request")
        assert not of_type(commands, StopWorker)
        running.extend(started(commands))


def test_a_worker_that_ran_out_of_memory_is_replaced() -> None:
    farm = PlannedSchedule()
    first = farm.ready(0)[0].attempt
    commands = farm.fails(0, first, "memory")
    assert ReportFailure(failure(first.spec, 1, 0, "memory"), Retry(2)) in commands
    assert StopWorker(0, "replaced, since it ran out of memory") in commands


def test_a_run_that_quarantines_most_of_its_clips_stops() -> None:
    farm = PlannedSchedule(
        with_retry(min_clips_to_stop=4, max_quarantined_share=0.5, max_failures_of_worker=99)
    )
    running, commands = deque(farm.ready(0)), list[Command]()
    for number in range(4):
        attempt = running.popleft().attempt
        commands = farm.done(0, attempt.spec) if number == 1 else farm.fails(0, attempt, "code")
        running.extend(started(commands))
    (halt,) = of_type(commands, Halt)
    assert isinstance(halt.error, TooManyFailuresError)
    assert "3 of the first 4 clips" in str(halt.error)
    assert "retry.max_quarantined_share allows 50%" in str(halt.error)


def test_a_run_that_quarantines_more_clips_than_allowed_stops() -> None:
    farm = PlannedSchedule(with_retry(max_quarantined=1))
    first, second, _ = (start.attempt for start in farm.ready(0))
    assert not of_type(farm.fails(0, first, "code"), Halt)
    (halt,) = of_type(farm.fails(0, second, "code"), Halt)
    assert isinstance(halt.error, TooManyFailuresError)
    assert "2 of the first 2 clips were quarantined, retry.max_quarantined allows 1" in str(
        halt.error
    )


@pytest.mark.parametrize("quarantined", [0, 1])
def test_a_run_stops_also_when_its_last_worker_dies_with_one_clip_too_many_and_one_to_go_on(
    quarantined: int,
) -> None:
    """The clip that goes on is neither in flight nor queued while the other is quarantined."""
    retry = replace(CONFIG.retry, max_lost_workers=1, max_quarantined=0)
    farm = PlannedSchedule(replace(CONFIG, retry=retry), num_clips=2)
    clips = [start.attempt.spec for start in farm.ready(0)]
    poison, other = clips[quarantined], clips[1 - quarantined]
    report = heartbeat(progress(poison, "denoise", 1, 1), progress(other, "queue", 1))
    farm.after(HeartbeatReceived(0, report))
    commands = farm.after(WorkerLost(0, "killed"))
    assert charged_by(commands) == [poison.clip_id]
    (halt,) = of_type(commands, Halt)
    assert isinstance(halt.error, TooManyFailuresError)


# nodes


def test_a_node_whose_clips_pass_elsewhere_is_cordoned() -> None:
    config = replace(
        with_retry(max_losses_of_node=2), workers=WorkerConfig(recycle_after_clips=None)
    )
    farm = PlannedSchedule(config, num_workers=2)
    running = deque(farm.ready(0, "good"))
    bad, anew = 1, list[StartWorker]()
    for losses in (1, 2):
        farm.ready(bad, "bad")
        (asked,) = of_type(farm.after(WorkerLost(bad, "killed")), StartWorker)
        assert not asked.cordoned
        suspects = 0
        while suspects < 3:  # each on the good node, one at a time, where it passes
            start = running.popleft()
            suspects += start.attempt.is_suspect
            commands = farm.done(0, start.attempt.spec)
            running.extend(started(commands))
            anew += of_type(commands, StartWorker)
        bad = asked.worker
        assert losses == len(farm.schedule._workers._attribution._losses["bad"])
    (asked,) = anew  # in place of the one that waited for any node
    assert asked.cordoned == {"bad"}


def test_a_clip_that_kills_workers_on_every_node_cordons_none() -> None:
    farm = PlannedSchedule(with_retry(max_losses_of_node=1), num_workers=2)
    farm.ready(0, "node-a")
    farm.ready(1, "node-b")
    (asked,) = of_type(farm.after(WorkerLost(0, "killed")), StartWorker)
    for number in (1, asked.worker):
        farm.ready(number, "node-b" if number == 1 else "node-a")
        (asked,) = of_type(farm.after(WorkerLost(number, "killed")), StartWorker)
        assert not asked.cordoned


def test_the_only_node_is_never_cordoned() -> None:
    farm = PlannedSchedule(with_retry(max_losses_of_node=1))
    farm.ready(0, "only")
    (asked,) = of_type(farm.after(WorkerLost(0, "killed")), StartWorker)
    farm.ready(asked.worker, "only")
    farm.schedule._workers._attribution.attribute(0, {"only"})
    (again,) = of_type(farm.after(WorkerLost(asked.worker, "killed")), StartWorker)
    assert not again.cordoned


def test_a_draining_node_gets_no_more_clips_and_its_worker_finishes_those_in_flight() -> None:
    farm = PlannedSchedule()
    running = farm.ready(0, "spot")
    assert not of_type(farm.after(NodesDraining(frozenset({"spot"}))), StopWorker)
    for start in running[:-1]:
        assert not started(farm.done(0, start.attempt.spec))
    (stop,) = of_type(farm.done(0, running[-1].attempt.spec), StopWorker)
    assert not stop.is_lost


# stalls


def heartbeat(
    *clips: ClipProgress, memory_bytes: int = 1_000, is_draining: bool = False
) -> WorkerHeartbeat:
    return WorkerHeartbeat(tuple(clips), memory_bytes, is_draining)


def test_a_stalled_clip_is_charged_and_the_others_of_its_worker_are_not() -> None:
    farm = PlannedSchedule()
    first, second, third = (start.attempt.spec for start in farm.ready(0))
    unalarmed = farm.after(
        HeartbeatReceived(
            0, heartbeat(progress(first, "denoise", 99, 1), progress(second, "queue", 500))
        )
    )
    assert not of_type(unalarmed, StopWorker)
    commands = farm.after(
        HeartbeatReceived(
            0, heartbeat(progress(first, "denoise", 101, 1), progress(second, "queue", 500))
        )
    )
    (report,) = of_type(commands, ReportFailure)
    assert (report.failed.clip_id, report.failed.failure_class) == (first.clip_id, "stall")
    assert report.failed.message == (
        "stalled in denoise after step 1: no progress for 101 s, the deadline is 100 s; "
        "if it is only slow, raise stall.first_s, stall.min_s or stall.factor"
    )
    assert of_type(commands, StopWorker)
    charged = {start.attempt.spec.clip_id for start in farm.ready(1) if start.attempt.is_suspect}
    assert charged <= {first.clip_id}
    assert third.clip_id not in charged


def test_a_deadline_is_learnt_from_the_slowest_measured_step() -> None:
    farm = PlannedSchedule()
    first, second, _ = (start.attempt.spec for start in farm.ready(0))
    steps = tuple(
        StageTiming("denoise", 0.0, seconds, step)
        for step, seconds in enumerate((11.0, 20.0, 12.0))
    )
    farm.after(ClipEnded(0, ClipDone(first.clip_id, first.name, 1, steps)))
    assert not of_type(
        farm.after(HeartbeatReceived(0, heartbeat(progress(second, "denoise", 59, 1)))), StopWorker
    )
    assert of_type(
        farm.after(HeartbeatReceived(0, heartbeat(progress(second, "denoise", 61, 1)))), StopWorker
    )


def test_the_first_clip_of_a_worker_has_time_to_compile_although_deadlines_were_learnt() -> None:
    farm = PlannedSchedule(num_workers=2)
    done = farm.ready(0)[0].attempt.spec
    cold = farm.ready(1)[0].attempt.spec
    farm.after(
        ClipEnded(0, ClipDone(done.clip_id, done.name, 1, (StageTiming("denoise", 0.0, 1.0, 0),)))
    )
    assert not of_type(
        farm.after(HeartbeatReceived(1, heartbeat(progress(cold, "denoise", 99, 0)))), StopWorker
    )
    assert of_type(
        farm.after(HeartbeatReceived(1, heartbeat(progress(cold, "denoise", 101, 0)))), StopWorker
    )


def test_a_clip_with_other_loras_has_time_to_compile_although_deadlines_were_learnt() -> None:
    other = replace(SPECS[1].request, loras=(LoraChoice("style", 0.5),))
    farm = PlannedSchedule(specs=(SPECS[0], replace(SPECS[1], request=other), *SPECS[2:]))
    done, styled, plain = (start.attempt.spec for start in farm.ready(0))
    timings = (StageTiming("denoise", 0.0, 1.0, 0),)
    farm.after(ClipEnded(0, ClipDone(done.clip_id, done.name, 1, timings)))
    within = heartbeat(progress(styled, "denoise", 99, 0), progress(plain, "denoise", 29, 0))
    assert not of_type(farm.after(HeartbeatReceived(0, within)), StopWorker)
    beyond = heartbeat(progress(plain, "denoise", 31, 0))
    assert of_type(farm.after(HeartbeatReceived(0, beyond)), StopWorker)


def test_a_worker_that_only_uploaded_a_spooled_clip_still_has_time_to_compile() -> None:
    farm = PlannedSchedule(num_workers=2)
    measured = farm.ready(0)[0].attempt.spec
    farm.after(
        ClipEnded(0, ClipDone(measured.clip_id, "", 1, (StageTiming("denoise", 0.0, 1.0, 0),)))
    )
    uploaded, cold, _ = (start.attempt.spec for start in farm.ready(1))
    farm.after(ClipEnded(1, ClipDone(uploaded.clip_id, "", 1, (StageTiming("upload", 0.0, 1.0),))))
    assert not of_type(
        farm.after(HeartbeatReceived(1, heartbeat(progress(cold, "denoise", 99, 0)))), StopWorker
    )


def test_one_slow_step_does_not_raise_the_deadline() -> None:
    farm = PlannedSchedule(replace(CONFIG, workers=WorkerConfig(recycle_after_clips=None)))
    running = deque(farm.ready(0))
    for seconds in (20.0, 20.0, 2_000.0, 20.0):
        one = running.popleft().attempt.spec
        timings = (StageTiming("denoise", 0.0, seconds, 0),)
        running.extend(
            started(farm.after(ClipEnded(0, ClipDone(one.clip_id, one.name, 1, timings))))
        )
    one = running.popleft().attempt.spec
    assert of_type(
        farm.after(HeartbeatReceived(0, heartbeat(progress(one, "denoise", 61, 1)))), StopWorker
    )


@pytest.mark.parametrize("stage", ["upload", "lookup"])
def test_a_worker_that_hangs_at_the_store_is_replaced_after_an_hour_and_no_clip_is_charged(
    stage: Stage,
) -> None:
    farm = PlannedSchedule()
    first = farm.ready(0)[0].attempt.spec
    assert not of_type(
        farm.after(HeartbeatReceived(0, heartbeat(progress(first, stage, 3_599)))), StopWorker
    )
    commands = farm.after(HeartbeatReceived(0, heartbeat(progress(first, stage, 3_601))))
    assert of_type(commands, StopWorker)
    assert not of_type(commands, ReportFailure)


def charged_by(commands: list[Command]) -> list[str]:
    return [report.failed.clip_id for report in of_type(commands, ReportFailure)]


def test_a_worker_without_heartbeats_is_killed_and_the_clip_it_computed_is_charged() -> None:
    farm = PlannedSchedule()
    first, second, third = (start.attempt.spec for start in farm.ready(0))
    farm.after(
        HeartbeatReceived(
            0,
            heartbeat(
                progress(first, "upload", 1),
                progress(second, "decode", 1),
                progress(third, "queue", 1),
            ),
        )
    )
    assert not of_type(farm.after(Tick(), later_s=9), StopWorker)
    farm.after(Tick(), later_s=9)
    commands = farm.after(Tick(), later_s=9)
    message = "stalled: no heartbeat for 27 s, the deadline is 20 s (stall.heartbeat_timeout_s)"
    assert StopWorker(0, message, may_return=True) in commands
    assert charged_by(commands) == [second.clip_id]


def test_a_bystander_is_charged_the_second_time_that_its_worker_dies() -> None:
    """The last heartbeat was old: the clip that waited then began since and killed the worker."""
    farm = PlannedSchedule()
    poison = farm.ready(0)[1].attempt.spec
    for worker in (0, 1):
        others = [one.spec for one in farm.in_flight(worker).values() if one.spec != poison]
        report = heartbeat(progress(others[0], "denoise", 1, 1), progress(poison, "queue", 1))
        farm.after(HeartbeatReceived(worker, report))
        charged = charged_by(farm.after(WorkerLost(worker, "killed")))
        assert others[0].clip_id in charged
        assert (poison.clip_id in charged) == (worker == 1)
        farm.ready(worker + 1)
        running = farm.in_flight(worker + 1)
        while poison.clip_id not in running:
            farm.done(worker + 1, next(iter(running.values())).spec)
    assert running[poison.clip_id].is_suspect
    assert len(running) == 1


def test_without_a_heartbeat_every_clip_of_a_dead_worker_is_charged() -> None:
    farm = PlannedSchedule()
    clips = [start.attempt.spec.clip_id for start in farm.ready(0)]
    assert charged_by(farm.after(WorkerLost(0, "killed"))) == clips


def test_a_clip_in_upload_is_not_charged_with_its_workers_death_and_goes_to_its_node() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0, "node-a")
    (first, *_) = (start.attempt.spec for start in farm.ready(1, "node-b"))
    farm.after(HeartbeatReceived(1, heartbeat(progress(first, "upload", 1))))
    commands = farm.after(WorkerLost(1, "killed"))
    assert first.clip_id not in [
        report.failed.clip_id for report in of_type(commands, ReportFailure)
    ]
    assert first not in [start.attempt.spec for start in started(commands)], (
        "it does not wait for its node"
    )
    assert first in [start.attempt.spec for start in farm.ready(2, "node-b")]


def test_time_in_which_the_driver_slept_does_not_stop_a_worker() -> None:
    farm = PlannedSchedule()
    farm.ready(0)
    assert not of_type(farm.after(Tick(), later_s=5_000), StopWorker)
    assert not of_type(farm.after(Tick(), later_s=9), StopWorker)


def test_time_in_which_the_driver_slept_is_left_out_of_outages_and_load_time_outs() -> None:
    farm = PlannedSchedule(with_retry(max_outage_s=100), num_workers=2)
    attempt = farm.ready(0)[0].attempt
    farm.fails(0, attempt, "store")
    commands = farm.after(Tick(), later_s=5_000)
    assert not of_type(commands, StopWorker)
    assert not of_type(farm.fails(0, replace(attempt, number=2), "store"), Halt)


# ends of workers and runs


def test_a_worker_is_replaced_after_its_share_of_clips_once_none_is_in_flight() -> None:
    farm = PlannedSchedule(
        replace(CONFIG, workers=WorkerConfig(spool_clips=1, recycle_after_clips=2))
    )
    running = deque(start.attempt.spec for start in farm.ready(0))
    running.extend(start.attempt.spec for start in started(farm.done(0, running.popleft())))
    assert not started(farm.done(0, running.popleft())), "it takes more than its share"
    commands = farm.done(0, running.popleft())
    assert StopWorker(0, "recycled after 2 clips", is_lost=False) in commands
    assert StartWorker(1) in commands


def test_a_worker_whose_memory_grew_is_replaced() -> None:
    farm = PlannedSchedule(
        replace(CONFIG, workers=WorkerConfig(spool_clips=1, recycle_growth_bytes=2**30))
    )
    first, second = (start.attempt.spec for start in farm.ready(0))
    (third,) = (start.attempt.spec for start in started(farm.done(0, first, memory_bytes=2**30)))
    farm.after(HeartbeatReceived(0, heartbeat(memory_bytes=3 * 2**30)))
    farm.done(0, second, memory_bytes=2**30)
    (stop,) = of_type(farm.done(0, third, memory_bytes=2**30), StopWorker)
    assert stop.message == "recycled: its memory grew by 2.0 GiB"


def test_a_plan_whose_next_clip_is_not_ready_is_asked_again_at_the_next_tick() -> None:
    schedule = Schedule(CONFIG, 1)
    schedule.start(0.0)
    asked = schedule.handle(WorkerReady(0, "host:0", NODES[0]), 1.0)
    assert of_type(asked, TakeClip)
    assert not schedule.handle(PlanWaits(), 1.0)
    assert not of_type(schedule.handle(HeartbeatReceived(0, heartbeat()), 1.1), TakeClip)
    assert not of_type(schedule.handle(RoomSeen(1), 1.2), TakeClip)
    assert not schedule.is_finished
    assert schedule.has_more_clips
    assert of_type(schedule.handle(Tick(), 1.3), TakeClip)
    assert started(schedule.handle(Planned(SPECS[0]), 1.3))


def test_a_draining_worker_finishes_its_clips_and_its_death_is_charged_to_none() -> None:
    farm = PlannedSchedule()
    first = farm.ready(0)
    farm.after(HeartbeatReceived(0, heartbeat(is_draining=True)))
    assert not started(farm.done(0, first[0].attempt.spec))
    commands = farm.after(WorkerLost(0, "killed after all"))
    assert not of_type(commands, ReportFailure)


def test_a_stopped_run_starts_nothing_and_waits_a_bounded_time_for_clips_in_flight() -> None:
    farm = PlannedSchedule()
    first = farm.ready(0)
    assert not of_type(farm.after(StopRequested("by SIGTERM")), Halt)
    commands = farm.done(0, first[0].attempt.spec)
    assert not started(commands)
    assert not of_type(commands, TakeClip | Halt)  # pyright: ignore[reportArgumentType]
    (halt,) = of_type(farm.after(Tick(), later_s=2.1), Halt)
    assert isinstance(halt.error, StoppedError)


def test_a_stopped_run_ends_at_once_when_nothing_is_in_flight() -> None:
    farm, commands = PlannedSchedule(), list[Command]()
    for start in farm.ready(0):
        farm.after(StopRequested("by SIGTERM"))
        commands = farm.done(0, start.attempt.spec)
    assert of_type(commands, Halt)


# the store


def test_a_clip_that_the_store_refuses_for_now_waits_and_goes_to_the_node_with_its_file() -> None:
    farm = PlannedSchedule(num_workers=2)
    first = farm.ready(0, "node-a")[0].attempt
    commands = farm.fails(0, first, "store")
    assert ReportFailure(failure(first.spec, 1, 0, "store"), Wait(2)) in commands
    assert first.spec not in [start.attempt.spec for start in farm.ready(1, "node-b")]
    assert not started(farm.after(Tick(), later_s=0.5)), "the worker does not back off"
    (again,) = started(farm.after(Tick(), later_s=0.6))
    assert (again.worker, again.attempt.spec, again.attempt.number) == (0, first.spec, 2)
    assert not again.attempt.is_suspect


def test_the_back_off_of_a_worker_doubles_up_to_its_limit() -> None:
    farm = PlannedSchedule(with_retry(back_off_s=1.0, max_back_off_s=3.0))
    attempt = farm.ready(0)[0].attempt
    waits = []
    for _ in range(4):
        farm.fails(0, attempt, "store")
        wait_s = 0.0
        while not (back := started(farm.after(Tick(), later_s=0.25))):
            wait_s += 0.25
        waits.append(wait_s + 0.25)
        attempt = back[0].attempt
    assert waits == [1.0, 2.0, 3.0, 3.0]


def test_a_long_outage_of_the_store_stops_the_run_and_quarantines_no_clip() -> None:
    farm = PlannedSchedule(with_retry(max_outage_s=10))
    attempt = farm.ready(0)[0].attempt
    for _ in range(100):
        commands = farm.fails(0, attempt, "store")
        assert not any(
            isinstance(report.decision, Quarantine) for report in of_type(commands, ReportFailure)
        )
        while not of_type(commands, Halt) and not started(commands):
            commands = farm.after(Tick(), later_s=1)
        if halts := of_type(commands, Halt):
            assert isinstance(halts[0].error, StoreUnavailableError)
            return
        attempt = started(commands)[0].attempt
    pytest.fail("the run goes on for ever")


def test_a_clip_that_an_earlier_run_left_encoded_on_a_node_goes_there() -> None:
    farm = PlannedSchedule(num_workers=2)
    left = SPECS[3]
    first = farm.ready(1, "node-b", spooled=frozenset({left.clip_id}))
    assert len(first) == 3
    assert left not in [start.attempt.spec for start in farm.ready(0, "node-a")]
    (start,) = started(farm.done(1, first[0].attempt.spec))
    assert (start.worker, start.attempt.spec) == (1, left)


def test_a_clip_that_is_found_encoded_after_its_worker_died_goes_to_that_node() -> None:
    """The clip was spooled after the worker's last heartbeat."""
    farm = PlannedSchedule(num_workers=3)
    farm.ready(0, "node-a")
    lost = farm.ready(1, "node-b")[0].attempt.spec
    farm.after(WorkerLost(1, "killed"))
    placed = farm.ready(3, "node-b", spooled=frozenset({lost.clip_id}))
    assert lost in [start.attempt.spec for start in placed]


def test_a_clip_that_is_on_no_disk_is_not_pinned_to_a_node() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(1, "node-b")
    attempt = farm.ready(0, "node-a")[0].attempt
    unspooled = replace(failure(attempt.spec, 1, 0, "store"), is_spooled=False)
    farm.after(ClipEnded(0, unspooled))
    for one in list(farm.in_flight(1).values()):
        farm.done(1, one.spec)
    assert attempt.spec.clip_id in farm.in_flight(1)


def test_a_long_clip_after_a_hiccup_of_the_store_does_not_count_as_an_outage() -> None:
    farm = PlannedSchedule(with_retry(max_outage_s=100))
    first, second, third = (start.attempt for start in farm.ready(0))
    farm.fails(0, first, "store")
    (again,) = started(farm.after(Tick(), later_s=2))
    farm.after(HeartbeatReceived(0, heartbeat(progress(again.attempt.spec, "denoise", 0, 0))))
    for _ in range(15):
        assert not of_type(
            farm.after(
                HeartbeatReceived(0, heartbeat(progress(again.attempt.spec, "denoise", 0, 0))),
                later_s=9,
            ),
            Halt,
        )
    assert not of_type(farm.fails(0, second, "store"), Halt)
    assert third.spec.clip_id in farm.in_flight(0)


def test_a_clip_waits_for_its_node_only_as_long_as_a_worker_may_start_there() -> None:
    """A worker that finds no room loads for half an hour; the clip does not wait that long."""
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0, "node-a")
    lost = farm.ready(1, "node-b")[0].attempt.spec
    farm.after(HeartbeatReceived(1, heartbeat(progress(lost, "upload", 1))))
    farm.after(WorkerLost(1, "its machine is gone", is_preempted=True))
    assert lost.clip_id not in farm.in_flight(0)
    for one in list(farm.in_flight(0).values()):
        farm.done(0, one.spec)
    for _ in range(12):
        farm.after(HeartbeatReceived(0, heartbeat()), later_s=9)
    farm.after(Tick())
    for one in list(farm.in_flight(0).values()):
        farm.done(0, one.spec)
    assert lost.clip_id in farm.in_flight(0)


def test_a_clip_that_is_rendered_anew_is_not_pinned_to_a_node_any_more() -> None:
    farm = PlannedSchedule(num_workers=2)
    attempt = farm.ready(0, "node-a")[0].attempt
    farm.fails(0, attempt, "store")
    (again,) = started(farm.after(Tick(), later_s=2))
    assert again.attempt.node == "node-a"
    farm.after(
        HeartbeatReceived(0, heartbeat(progress(attempt.spec, "denoise", 1, 1)))
    )  # the spooled file was damaged
    farm.after(WorkerLost(0, "killed"))
    assert [one.node for one in farm.schedule._clips._waiting if one.spec == attempt.spec] == [None]


def test_a_suspect_goes_to_a_healthy_node_rather_than_wait_for_a_paused_worker() -> None:
    farm = PlannedSchedule(num_workers=2)
    lost = farm.ready(0, "node-a")[0].attempt.spec
    other = farm.ready(1, "node-b")[0].attempt
    farm.after(WorkerLost(0, "killed"))
    full = replace(failure(other.spec, 1, 1, "store"), is_spooled=False)
    farm.after(ClipEnded(1, full))
    assert [start.attempt.spec for start in farm.ready(2, "node-a")] == [lost]


def test_a_store_that_hangs_for_too_long_ends_the_run() -> None:
    farm, commands = PlannedSchedule(with_retry(max_outage_s=10)), list[Command]()
    for worker in range(2):
        first = farm.ready(worker)[0].attempt.spec
        commands = farm.after(
            HeartbeatReceived(worker, heartbeat(progress(first, "lookup", 3_601)))
        )
        assert of_type(commands, StopWorker)
        farm.after(Tick(), later_s=9)
        farm.after(Tick(), later_s=9)
    (halt,) = of_type(commands, Halt)
    assert isinstance(halt.error, StoreUnavailableError)


# loading


def test_workers_without_a_place_wait_without_end_and_are_not_charged() -> None:
    farm = PlannedSchedule(num_workers=4)
    farm.ready(0)
    for _ in range(400):
        farm.after(HeartbeatReceived(0, heartbeat()))
        assert farm.after(Tick(), later_s=9) == []
    assert len(farm.schedule._pool.workers) == 4


def test_a_worker_has_its_time_to_load_from_when_it_has_its_devices() -> None:
    farm = PlannedSchedule()
    for _ in range(400):
        farm.after(Tick(), later_s=9)
    farm.after(WorkerPlaced(0))
    for _ in range(33):
        assert not of_type(farm.after(Tick(), later_s=9), StopWorker)
    (stop,) = of_type(farm.after(Tick(), later_s=9), StopWorker)
    assert stop.message == "not ready within 300 s (workers.load_timeout_s)"


def test_workers_that_load_for_too_long_end_the_run() -> None:
    farm, commands = PlannedSchedule(), list[Command]()
    for worker in range(3):
        farm.after(WorkerPlaced(worker))
        while not of_type(commands := farm.after(Tick(), later_s=9), StopWorker):
            pass
    (halt,) = of_type(commands, Halt)
    assert isinstance(halt.error, ModelNotLoadedError)


def test_nodes_that_join_get_workers_and_nodes_that_leave_take_none_from_the_number() -> None:
    farm = PlannedSchedule(num_workers=1)
    assert of_type(farm.after(RoomSeen(3)), StartWorker) == [StartWorker(1), StartWorker(2)]
    assert farm.after(RoomSeen(2)) == []
    assert farm.after(RoomSeen(3)) == []
    assert len(of_type(farm.after(RoomSeen(4)), StartWorker)) == 1


def test_a_node_that_joins_gets_a_worker_although_another_one_loads_none() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0)
    farm.after(WorkerNotLoaded(1, "the weights are broken", is_final=True))
    assert farm.after(RoomSeen(2)) == []
    assert len(of_type(farm.after(RoomSeen(3)), StartWorker)) == 1


@pytest.mark.parametrize(("wait_s", "num_ticks"), [(100.0, 13), (0.0, 1)])
def test_a_cluster_without_a_node_for_a_worker_is_waited_for(wait_s: float, num_ticks: int) -> None:
    workers = replace(CONFIG.workers, wait_for_resources_s=wait_s)
    farm, commands = PlannedSchedule(replace(CONFIG, workers=workers)), list[Command]()
    for _ in range(num_ticks):
        assert not commands
        commands = farm.after(RoomSeen(1, "a worker needs 1 GPU"), later_s=9)
    (halt,) = of_type(commands, Halt)
    assert isinstance(halt.error, NoWorkersError)
    assert str(halt.error).startswith("no room for a worker")
    assert str(halt.error).endswith(": a worker needs 1 GPU")


@pytest.mark.parametrize("has_place", [True, False])
def test_a_cluster_that_gets_a_node_or_lost_one_under_a_worker_does_not_end_the_run(
    has_place: bool,
) -> None:
    workers = replace(CONFIG.workers, wait_for_resources_s=20)
    farm = PlannedSchedule(replace(CONFIG, workers=workers))
    if has_place:
        farm.after(WorkerPlaced(0))
    for turn in range(20):
        lacking = "a worker needs 1 GPU" if has_place or turn % 2 else None
        assert not of_type(farm.after(RoomSeen(1, lacking), later_s=9), Halt)


def test_a_worker_that_waits_is_asked_for_anew_when_other_nodes_are_cordoned() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0, "node-a")
    farm.schedule._workers._attribution.attribute(0, {"node-b"})
    for worker in (97, 98, 99):
        farm.schedule._workers._attribution.attribute(worker, {"node-b"})
    commands = farm.after(Tick())
    assert [(stop.worker, stop.is_lost) for stop in of_type(commands, StopWorker)] == [(1, False)]
    assert of_type(commands, StartWorker) == [StartWorker(2, frozenset({"node-b"}))]
    assert not farm.after(Tick())


def test_a_node_on_which_no_worker_loads_does_not_end_the_run_while_others_still_load() -> None:
    farm = PlannedSchedule(num_workers=3)
    commands = farm.after(WorkerNotLoaded(0, "the weights are broken", is_final=True))
    assert not of_type(commands, Halt)
    assert not of_type(commands, StartWorker)
    assert farm.ready(1)


def test_a_run_ends_when_no_worker_loads_on_any_node() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.after(WorkerNotLoaded(0, "the weights are broken", is_final=True))
    (halt,) = of_type(farm.after(WorkerNotLoaded(1, "the weights are broken", is_final=True)), Halt)
    assert isinstance(halt.error, NoWorkersError)


def test_all_workers_that_do_not_reach_the_store_are_started_again_later() -> None:
    farm = PlannedSchedule(with_retry(back_off_s=1.0))
    for worker in range(5):
        commands = farm.after(WorkerNotLoaded(worker, "no answer", is_store=True))
        assert not of_type(commands, Halt)
        assert not of_type(commands, StartWorker)
        asked = list[StartWorker]()
        while not asked:
            asked = of_type(farm.after(Tick(), later_s=1), StartWorker)
        assert asked == [StartWorker(worker + 1)]
    assert farm.ready(5)


def test_a_worker_whose_device_failed_is_replaced_and_its_other_clips_are_not_charged() -> None:
    farm = PlannedSchedule()
    first, *_ = (start.attempt for start in farm.ready(0))
    commands = farm.fails(0, first, "worker")
    assert (
        StopWorker(0, "replaced, since its device or its machine failed", may_return=True)
        in commands
    )
    assert len(of_type(commands, ReportFailure)) == 1


def test_retries_can_be_switched_off() -> None:
    policy = RetryPolicy(max_lost_workers=1)
    farm = PlannedSchedule(replace(CONFIG, retry=policy))
    farm.ready(0)
    reports = of_type(farm.after(WorkerLost(0, "killed")), ReportFailure)
    assert [type(report.decision) for report in reports] == [Quarantine] * 3


# workers on several nodes


def test_a_worker_on_several_nodes_is_replaced_when_one_of_them_is_drained() -> None:
    farm = PlannedSchedule()
    clips = started(farm.after(WorkerReady(0, "group", NODES[0], others=frozenset({NODES[1]}))))
    farm.after(NodesDraining(frozenset({NODES[1]})))
    commands = [command for start in clips for command in farm.done(0, start.attempt.spec)]
    assert StopWorker(0, "its node is being drained", is_lost=False) in commands


def test_a_loss_is_attributed_to_each_node_of_the_worker_once_the_clip_passed_elsewhere() -> None:
    farm = PlannedSchedule(with_retry(max_losses_of_node=1))
    (first, *_) = started(
        farm.after(WorkerReady(0, "group", NODES[0], others=frozenset({NODES[1]})))
    )
    farm.after(
        HeartbeatReceived(0, WorkerHeartbeat((progress(first.attempt.spec, "denoise", 1),), 1_000))
    )
    farm.after(WorkerLost(0, "killed"))
    farm.ready(1, NODES[2])
    farm.done(1, first.attempt.spec)
    assert farm.schedule._workers._attribution.cordoned({*NODES}) == {NODES[0], NODES[1]}


def test_no_process_of_a_worker_that_died_while_it_drained_is_used_again() -> None:
    farm = PlannedSchedule()
    farm.ready(0)
    farm.after(NodesDraining(frozenset({NODES[0]})))
    assert StopWorker(0, "gone", may_return=False) in farm.after(WorkerLost(0, "gone"))
