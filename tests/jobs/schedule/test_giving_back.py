"""Workers that a run gives back: which ones, when each ends, and what becomes of its clips."""

from dataclasses import replace

from jobs.schedule import events as ev
from jobs.schedule.events import Command, WorkerId
from tests.fakes.simulated_cluster import PlannedSchedule, of_type, started

ALONE = ev.RoomSeen(2)


def share_of(most: int) -> ev.RoomSeen:
    return ev.RoomSeen(3, most=most)


def given_back(commands: list[Command]) -> list[WorkerId]:
    return [one.worker for one in of_type(commands, ev.ReleaseWorker) if one.message]


def test_a_worker_ends_after_its_clip_and_the_clips_behind_it_go_to_another() -> None:
    farm = PlannedSchedule(num_workers=2)
    first, *queued = (start.attempt.spec for start in farm.ready(0))
    farm.ready(1)
    commands = farm.after(share_of(1))
    assert given_back(commands) == []
    going = next(iter(of_type(commands, ev.RecallClip))).worker
    assert going == 1, "the one that came last"
    recalled = [one.clip_id for one in of_type(commands, ev.RecallClip)]
    clips = list(farm.in_flight(1).values())
    assert recalled == [one.spec.clip_id for one in clips[1:]]
    for attempt in clips[1:]:
        farm.returns(1, attempt.spec)
    assert given_back(farm.done(1, clips[0].spec)) == [1]
    starts = started(farm.done(0, first))
    assert starts[0].attempt.spec.clip_id in recalled
    assert starts[0].attempt.number == 1, "the attempt had not begun"
    assert queued


def test_a_clip_that_has_begun_meanwhile_is_waited_for() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0)
    farm.ready(1)
    farm.after(share_of(1))
    one, two, three = (attempt.spec for attempt in farm.in_flight(1).values())
    farm.returns(1, three)
    assert given_back(farm.done(1, one)) == []
    assert given_back(farm.done(1, two)) == [1]


def test_workers_that_wait_or_load_go_first_and_none_is_asked_for_beyond_the_share() -> None:
    farm = PlannedSchedule(num_workers=3)
    farm.ready(0)
    farm.after(ev.WorkerPlaced(1))
    assert given_back(farm.after(share_of(2))) == [2], "it waits for a place"
    assert given_back(farm.after(share_of(1))) == [1], "it loads"
    assert not of_type(farm.after(share_of(1)), ev.StartWorker)
    assert len(of_type(farm.after(share_of(3)), ev.StartWorker)) == 2


def test_no_worker_goes_from_a_node_on_which_no_other_run_could_use_its_place() -> None:
    farm = PlannedSchedule(num_workers=4)
    farm.ready(0, "node-a")
    farm.ready(1, "node-b")
    farm.after(ev.WorkerPlaced(2))
    elsewhere, there = (
        replace(share_of(1), wanted_on=frozenset(nodes)) for nodes in ({"node-c"}, {"node-a"})
    )
    commands = farm.after(elsewhere)
    assert given_back(commands) == [3], "it waits for a place; the node of 2, which loads, is open"
    assert not of_type(commands, ev.RecallClip)
    commands = farm.after(there)
    assert {one.worker for one in of_type(commands, ev.RecallClip)} == {0}


def test_a_worker_that_was_to_go_stays_once_the_share_has_grown() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0)
    farm.ready(1)
    farm.after(ev.RoomSeen(2, most=1))
    clips = [attempt.spec for attempt in farm.in_flight(1).values()]
    commands = farm.after(ALONE)
    assert not of_type(commands, ev.StartWorker)
    commands = farm.done(1, clips[0])
    assert given_back(commands) == []
    assert started(commands), "it takes clips again"


def test_a_worker_whose_node_is_drained_goes_on_draining_when_the_share_grows() -> None:
    farm = PlannedSchedule(num_workers=2)
    farm.ready(0, "node-a")
    farm.ready(1, "node-b")
    farm.after(ev.RoomSeen(2, most=1))
    farm.after(ev.NodesDraining(frozenset({"node-b"})))
    farm.after(ALONE)
    specs = [attempt.spec for attempt in farm.in_flight(1).values()]
    assert not [one for one in started(farm.done(1, specs[0])) if one.worker == 1]


def test_workers_of_one_node_go_together() -> None:
    farm = PlannedSchedule(num_workers=4)
    for number, node in enumerate(("node-a", "node-b", "node-b", "node-a")):
        farm.ready(number, node)
    farm.after(ev.RoomSeen(4, most=2))
    pool = farm.schedule._pool
    going = {worker.node for worker in pool.loaded.values() if worker.is_given_back}
    assert len(going) == 1
