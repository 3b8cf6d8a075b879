"""Runs that share a farm, in virtual time: fair shares, first workers, and no worker to and fro."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.plan.group_capacity import RankResources
from jobs.shares.resource_split import TOTAL_WINDOW_S, Place, ResourceSplit
from jobs.shares.run_claims import KindClaim, RunClaim
from pipelines.parallel_config import ParallelConfig
from tests.builders.shared_farm import LOAD_S, RunOf, SharedFarm

NIGHT = RunOf("night", 10_000)


def mean_held(farm: SharedFarm, name: str, from_s: float, to_s: float) -> float:
    held = [now.get(name, 0) for at_s, now in farm.held if from_s <= at_s <= to_s]
    return sum(held) / len(held)


@pytest.mark.parametrize(("num_devices", "count"), [(9, None), (12, 100), (48, None)])
def test_two_runs_with_weights_2_to_1_share_the_workers_within_10_percent(
    num_devices: int, count: int | None
) -> None:
    heavy = RunOf("heavy", 10_000, weight=2, count=count)
    light = RunOf("light", 10_000, clip_s=20, begins_s=200, count=count)
    farm = SharedFarm(num_devices, heavy, light)
    farm.until_s(700)
    settled_s = 200 + 2 * heavy.clip_s
    held = [mean_held(farm, name, settled_s, 700) for name in ("heavy", "light")]
    assert held[0] / held[1] == pytest.approx(2, rel=0.1)
    assert sum(held) == pytest.approx(num_devices, rel=0.01)
    assert len(farm.runs["heavy"].given_back_s) == num_devices // 3
    assert not farm.runs["light"].given_back_s


def test_a_trial_of_20_clips_beside_a_night_of_10_000_gets_its_first_worker_within_two_clips() -> (
    None
):
    trial = RunOf("trial", 20, begins_s=307)
    farm = SharedFarm(8, NIGHT, trial)
    farm.until(lambda: "trial" in farm.runs and farm.runs["trial"].ended_s is not None, 10_000)
    first_s = farm.runs["trial"].placed_s[0]
    assert first_s - trial.begins_s <= 2 * NIGHT.clip_s
    ended_s = farm.runs["trial"].ended_s
    assert ended_s is not None
    assert ended_s - first_s <= LOAD_S + 20 / 4 * trial.clip_s + 2 * NIGHT.clip_s
    farm.until_s(ended_s + 2 * LOAD_S)
    assert farm.runs["night"].num_held == 8, "the night has all devices again"


def test_a_run_that_has_the_weight_of_many_still_leaves_one_worker_to_each_of_the_others() -> None:
    farm = SharedFarm(4, RunOf("a", 5_000, weight=100), RunOf("b", 50, begins_s=200))
    farm.until_s(400)
    assert farm.held[-1][1] == {"a": 3, "b": 1}


def test_devices_that_another_job_holds_take_no_part_in_the_split() -> None:
    farm = SharedFarm(12, NIGHT, RunOf("other", 5_000, begins_s=200), num_foreign=4)
    farm.until_s(500)
    assert farm.held[-1][1] == {"night": 4, "other": 4}
    assert len(farm.runs["night"].given_back_s) == 4


def test_a_group_gets_the_devices_of_one_node() -> None:
    group = RunOf("group", 50, begins_s=200, parallel=ParallelConfig(8))
    farm = SharedFarm(16, NIGHT, group)
    farm.until_s(400)
    assert farm.held[-1][1] == {"night": 8, "group": 1}
    assert len(farm.runs["night"].given_back_s) == 8


@pytest.mark.parametrize("machine", [0, 1])
@pytest.mark.parametrize("pinned_begins_s", [0.0, 200.0])
def test_a_run_of_one_kind_of_node_gets_its_share_there_and_no_device_idles(
    machine: int, pinned_begins_s: float
) -> None:
    night = RunOf("night", 10_000, begins_s=200 - pinned_begins_s)
    pinned = RunOf("pinned", 10_000, begins_s=pinned_begins_s, on=(machine,))
    farm = SharedFarm(16, night, pinned)
    farm.until_s(200 + 2 * night.clip_s + LOAD_S)
    assert farm.held[-1][1] == {"night": 8, "pinned": 8}
    num_given = len(farm.runs["night"].given_back_s)
    assert num_given == (8 if pinned_begins_s else 0), "those of the other machine stay"
    farm.until_s(1000)
    assert len(farm.runs["night"].given_back_s) == num_given
    assert not farm.runs["pinned"].given_back_s


def test_a_run_leaves_the_nodes_that_alone_suit_another_for_those_that_are_free() -> None:
    early = RunOf("early", 8 * 4)  # its machine is free again after some minutes
    night = RunOf("night", 10_000, begins_s=10)
    pinned = RunOf("pinned", 10_000, begins_s=20, on=(1,))
    farm = SharedFarm(16, replace(early, on=(0,)), night, pinned)
    farm.until_s(900)
    assert farm.runs["early"].ended_s is not None
    assert farm.held[-1][1] == {"early": 0, "night": 8, "pinned": 8}


def most_of(split: ResourceSplit, held: int, free: int, now: float) -> float | None:
    """Return the share of a run that holds some of eight GPUs, beside one that holds none yet."""
    gpu = RankResources(1, 1)
    own = RunClaim("a", 1, (KindClaim(gpu, 1, held, 8),))
    rival = RunClaim("b", 1, (KindClaim(gpu, 1, 0, 8),))
    place = Place("node", {"GPU": 8.0, "CPU": 8.0}, {"GPU": float(free)})
    return split.most(own, [rival], [place], now, may_ask_for_more=False)[0]


def test_a_device_on_its_way_to_another_run_still_counts_so_that_no_further_one_is_given() -> None:
    split = ResourceSplit()
    assert most_of(split, held=8, free=0, now=0) == 4
    assert [most_of(split, held=4, free=0, now=now) for now in (5, 10, TOTAL_WINDOW_S)] == [4] * 3
    assert most_of(split, held=4, free=0, now=31) == 4, "until the share was low for a moment"
    assert most_of(split, held=4, free=0, now=40) == 2, "other jobs hold the rest"


def test_free_devices_take_part_in_the_split_up_to_all_that_there_are() -> None:
    assert most_of(ResourceSplit(), held=2, free=6, now=0) == 4
    assert most_of(ResourceSplit(), held=8, free=4, now=0) == 4, "the view of the free ones is old"


@settings(max_examples=6)
@given(
    num_devices=st.integers(3, 20),
    weights=st.lists(st.sampled_from([0.5, 1, 2, 3]), min_size=2, max_size=4),
    clips_s=st.lists(st.floats(5, 30), min_size=4, max_size=4),
    begins_s=st.lists(st.floats(0, 100), min_size=4, max_size=4),
    is_counted=st.booleans(),
)
def test_runs_that_begin_at_any_time_soon_have_what_they_keep(
    num_devices: int,
    weights: list[float],
    clips_s: list[float],
    begins_s: list[float],
    is_counted: bool,
) -> None:
    runs = [
        RunOf(f"run{number}", 100_000, clips_s[number], weight, begins_s[number], 30)
        if is_counted
        else RunOf(f"run{number}", 100_000, clips_s[number], weight, begins_s[number])
        for number, weight in enumerate(weights)
    ]
    farm = SharedFarm(num_devices, *runs)
    settled_s = 100 + 5 * 30 + 2 * LOAD_S
    farm.until_s(settled_s)
    _, settled = farm.held[-1]
    assert sum(settled.values()) == num_devices, "no device idles"
    assert min(settled.values()) >= (num_devices >= len(runs))
    farm.until_s(settled_s + 100)
    assert farm.held[-1][1] == settled
    assert not any(at_s > settled_s for run in farm.runs.values() for at_s in run.given_back_s)


@settings(max_examples=3)
@given(
    on=st.lists(st.sampled_from([(), (0,), (1,), (0, 1)]), min_size=2, max_size=4),
    num_devices=st.integers(12, 20),
    begins_s=st.lists(st.floats(0, 100), min_size=4, max_size=4),
)
def test_runs_of_any_kinds_of_node_all_have_workers_and_soon_keep_them(
    on: list[tuple[int, ...]], num_devices: int, begins_s: list[float]
) -> None:
    runs = [
        RunOf(f"run{number}", 100_000, 30, begins_s=begins_s[number], on=machines)
        for number, machines in enumerate(on)
    ]
    farm = SharedFarm(num_devices, *runs)
    farm.until_s(100 + 8 * 30 + 3 * LOAD_S)
    _, settled = farm.held[-1]
    assert min(settled.values()) >= 1
    for number, free in enumerate(farm.farm._free):
        assert not (free and any(number in (one or range(3)) for one in on)), "a device idles"
    given = [len(run.given_back_s) for run in farm.runs.values()]
    farm.until_s(farm.farm.clock.now + 100)
    assert farm.held[-1][1] == settled
    assert [len(run.given_back_s) for run in farm.runs.values()] == given


@settings(max_examples=10)
@given(
    num_clips=st.lists(st.integers(1, 30), min_size=2, max_size=3),
    begins_s=st.lists(st.floats(0, 100), min_size=3, max_size=3),
    num_devices=st.integers(2, 9),
)
def test_every_clip_of_every_run_ends_once(
    num_clips: list[int], begins_s: list[float], num_devices: int
) -> None:
    runs = [
        RunOf(f"run{number}", clips, 30.0, begins_s=begins_s[number])
        for number, clips in enumerate(num_clips)
    ]
    farm = SharedFarm(num_devices, *runs)
    farm.until(
        lambda: (
            len(farm.runs) == len(runs)
            and all(run.ended_s is not None for run in farm.runs.values())
        ),
        100_000,
    )
    for of in runs:
        run = farm.runs[of.name]
        assert (run.pool.num_done, run.pool.num_quarantined, run.pool.num_workers_lost) == (
            of.num_clips,
            0,
            0,
        )
