"""Runs in virtual time: bounds that hold for any clips, times by hand, faults and bottlenecks."""

import statistics
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import RefusedError
from jobs.settings.run_config import RetryPolicy
from jobs.simulation.conditions import ClipTimes, Conditions
from pipelines.parallel_config import ParallelConfig
from tests.builders.simulated import CONFIG, START_S, Clips, farm_of, run

SECONDS = st.floats(0.5, 300)
CLIPS = st.lists(SECONDS, min_size=1, max_size=25)
FAULTS = {"failures": 0.05, "preemptions": 2.0}


@given(device_s=CLIPS, num_devices=st.integers(1, 20), host_s=SECONDS, seed=st.integers(0, 9))
def test_without_faults_every_clip_ends_once_and_no_run_beats_the_bounds(
    device_s: list[float], num_devices: int, host_s: float, seed: int
) -> None:
    ended: list[int] = []
    clips = Clips.of(*device_s, host_s=host_s)
    outcome = run(farm_of(num_devices, seed=seed), clips, ended=ended)
    assert (outcome.num_done, len(ended)) == (len(device_s), len(device_s))
    assert (outcome.num_quarantined, outcome.num_workers_lost, outcome.halt) == (0, 0, None)
    assert outcome.busy_s == pytest.approx(sum(device_s))
    assert outcome.wall_s >= START_S + sum(device_s) / num_devices - 1e-6
    assert outcome.wall_s >= START_S + max(device_s) + host_s - 1e-6
    total_s = num_devices * outcome.wall_s
    assert outcome.busy_s + sum(outcome.lost_s.values()) == pytest.approx(total_s)


@given(device_s=CLIPS, seed=st.integers(0, 9))
def test_on_one_device_the_wall_time_is_the_sum_by_hand(device_s: list[float], seed: int) -> None:
    host_s, upload_s = 0.2, 0.1  # shorter than any clip, so that the device never waits for them
    clips = Clips.of(*device_s, host_s=host_s, upload_s=upload_s)
    outcome = run(farm_of(1, seed=seed), clips)
    assert outcome.wall_s == pytest.approx(START_S + sum(device_s) + host_s + upload_s)
    assert outcome.busy_share == pytest.approx(sum(device_s) / outcome.wall_s)


def test_more_devices_are_faster_on_average() -> None:
    lengths = [(ClipTimes(seconds, host_s=2), 15) for seconds in (60, 20, 10)]

    def mean_s(num_devices: int) -> float:
        farms = [farm_of(num_devices, seed=seed, **FAULTS) for seed in range(8)]
        return statistics.fmean(run(farm, Clips(lengths)).wall_s for farm in farms)

    walls_s = [mean_s(num_devices) for num_devices in (1, 2, 4, 8, 16)]
    assert walls_s == sorted(walls_s, reverse=True)


@settings(max_examples=30)
@given(device_s=CLIPS, num_devices=st.integers(1, 12), seed=st.integers(0, 99))
def test_with_faults_every_clip_still_ends_and_equal_seeds_give_equal_runs(
    device_s: list[float], num_devices: int, seed: int
) -> None:
    farm = farm_of(num_devices, seed=seed, **FAULTS)
    outcome = run(farm, Clips.of(*device_s))
    assert outcome == run(farm, Clips.of(*device_s))
    assert outcome.num_done + outcome.num_quarantined == len(device_s)
    total_s = num_devices * outcome.wall_s
    assert outcome.busy_s + sum(outcome.lost_s.values()) == pytest.approx(total_s)


def test_another_seed_gives_another_run() -> None:
    clips = Clips([(ClipTimes(60), 50)])
    walls = {run(farm_of(4, seed=seed, **FAULTS), clips).wall_s for seed in range(3)}
    assert len(walls) == 3


def test_a_killed_worker_costs_its_clip_and_a_start() -> None:
    """Two devices, four clips of 60 s: the first two begin at 30 s, one worker dies at 50 s."""
    outcome = run(farm_of(2, losses_s=(50.0,)), Clips.of(60, 60, 60, 60))
    assert (outcome.num_workers_lost, outcome.num_done) == (1, 4)
    # the other worker goes on; the new one is there at 80 s, and its second clip ends at 200 s
    assert outcome.wall_s == pytest.approx(200, abs=0.1)  # a recalled clip takes a moment
    assert outcome.busy_s == pytest.approx(4 * 60 + 20)


def test_a_clip_that_was_encoded_is_not_rendered_again_on_its_machine() -> None:
    """The worker dies while it uploads the only clip; the next one finds it in the spool."""
    clips = Clips.of(60, 60, upload_s=30)
    outcome = run(farm_of(1, losses_s=(100.0,)), clips)
    # the first clip is in upload from 90 s on; the second one has computed for 10 s
    assert outcome.busy_s == pytest.approx(60 + 10 + 60)
    assert outcome.num_done == 2


def test_a_worker_that_only_uploads_a_suspect_takes_further_clips() -> None:
    """The schedule learns it from a heartbeat.

    The worker dies with its first clip at 50 s, and the next one renders that clip alone, from 80 s
    to 140 s. No clip waits for its upload.
    """
    outcome = run(farm_of(1, losses_s=(50.0,)), Clips.of(60, 60, 60, upload_s=200))
    assert outcome.wall_s == pytest.approx(80 + 3 * 60 + 200, abs=11)


def test_preemptions_quarantine_nothing_and_failures_may() -> None:
    clips = Clips([(ClipTimes(600), 30)])
    preempted = run(farm_of(4, preemptions=6.0), clips)
    assert preempted.num_workers_lost > 10
    assert (preempted.num_quarantined, preempted.num_done) == (0, 30)
    lenient = replace(CONFIG, retry=RetryPolicy(max_quarantined_share=1))
    failing = run(farm_of(4, failures=0.6), clips, config=lenient)
    assert failing.num_quarantined > 0
    assert failing.num_done + failing.num_quarantined == 30


def test_a_run_that_would_stop_says_why() -> None:
    outcome = run(farm_of(4, failures=0.95), Clips([(ClipTimes(10), 100)]))
    assert outcome.halt is not None
    assert "clips were quarantined" in outcome.halt
    assert outcome.num_done + outcome.num_quarantined < 100


def test_a_run_that_never_ends_is_cut_off() -> None:
    """Each worker is preempted long before its first clip is done."""
    outcome = run(farm_of(2, preemptions=500.0), Clips([(ClipTimes(600), 10)]))
    assert outcome.halt == "201 workers were lost in a row, and no clip done"
    assert outcome.num_done == 0


def test_the_store_takes_no_time_for_workers_that_are_gone() -> None:
    """Clips wait for the store for longer than most devices live."""
    farm = farm_of(10, preemptions=10.0, store_requests_per_s=0.2)
    outcome = run(farm, Clips([(ClipTimes(60), 60)]))
    assert outcome.num_done == 60
    assert outcome.bottleneck == "store"


@pytest.mark.parametrize(
    ("changes", "times", "least_s", "bottleneck"),
    [
        ({}, ClipTimes(30), 0.0, "devices"),
        ({"store_requests_per_s": 1.0}, ClipTimes(10), 6 * 200, "store"),
        ({"store_bytes_per_s": 1e6}, ClipTimes(10, num_bytes=5_000_000), 5 * 200, "store"),
        ({"driver_s": 3.0}, ClipTimes(10), 3 * 200, "driver"),
        ({}, ClipTimes(10, host_s=60), 0.0, "encoding"),
    ],
)
def test_the_bottleneck_is_named(
    changes: dict[str, float], times: ClipTimes, least_s: float, bottleneck: str
) -> None:
    outcome = run(farm_of(8, **changes), Clips([(times, 200)]))
    assert outcome.wall_s >= START_S + least_s
    assert outcome.bottleneck == bottleneck, outcome
    assert (outcome.busy_share >= 0.9) == (bottleneck == "devices")


@pytest.mark.parametrize(("num_clips", "bottleneck"), [(8, "start"), (9, "end")])
def test_a_short_run_loses_its_time_at_its_start_or_its_end(
    num_clips: int, bottleneck: str
) -> None:
    outcome = run(farm_of(8), Clips([(ClipTimes(50), num_clips)]))
    assert outcome.bottleneck == bottleneck
    assert outcome.num_done == num_clips


def test_a_worker_is_recycled_as_in_a_run() -> None:
    config = replace(CONFIG, workers=replace(CONFIG.workers, recycle_after_clips=10))
    clips = Clips([(ClipTimes(10), 30)])
    assert run(farm_of(1), clips, config=config).wall_s == pytest.approx(3 * (START_S + 100))


def test_a_group_takes_its_devices() -> None:
    """Four clips on two groups of four devices."""
    outcome = run(farm_of(8), Clips([(ClipTimes(60), 4)], ParallelConfig(ulysses=4)))
    assert outcome.wall_s == pytest.approx(START_S + 2 * 60, abs=0.2)
    assert outcome.busy_s == 8 * 120


def test_the_next_model_starts_on_devices_that_the_first_one_leaves() -> None:
    """Five clips of 100 s on four devices, then three of another model, in the free places.

    One after the other they would take twice the start and three rounds of clips.
    """
    first, second = Clips([(ClipTimes(100), 5)]), Clips([(ClipTimes(100), 3)], model="n")
    outcome = run(farm_of(4), first, second)
    assert outcome.num_done == 8
    assert outcome.wall_s == pytest.approx(2 * START_S + 200, abs=2)
    assert outcome.busy_s == pytest.approx(800)


def test_the_second_model_also_gets_the_last_device_of_the_first() -> None:
    """It begins on three devices at 160 s, and has the fourth from 260 s on."""
    first, second = Clips([(ClipTimes(100), 5)]), Clips([(ClipTimes(10), 100)], model="n")
    outcome = run(farm_of(4), first, second)
    assert outcome.wall_s == pytest.approx(260 + 70 / 4 * 10, abs=10)


@settings(max_examples=20)
@given(
    lengths=st.lists(CLIPS, min_size=2, max_size=3),
    num_devices=st.integers(4, 20),
    seed=st.integers(0, 99),
)
def test_the_clips_of_several_models_all_end_with_faults(
    lengths: list[list[float]], num_devices: int, seed: int
) -> None:
    kinds = [
        replace(Clips.of(*device_s), model=f"m{index}", parallel=ParallelConfig(2 ** (2 - index)))
        for index, device_s in enumerate(lengths)
    ]
    outcome = run(farm_of(num_devices, seed=seed, **FAULTS), *kinds)
    assert outcome.halt is None
    assert outcome.num_done + outcome.num_quarantined == sum(map(len, lengths))
    total_s = num_devices * outcome.wall_s
    assert outcome.busy_s + sum(outcome.lost_s.values()) == pytest.approx(total_s)


def test_a_model_waits_until_its_group_has_a_place() -> None:
    """The group of eight devices needs all of them, so that it begins when the last one is free."""
    alone, group = Clips([(ClipTimes(60), 9)]), Clips([(ClipTimes(60), 1)], ParallelConfig(8), "w")
    outcome = run(farm_of(8), alone, group)
    assert outcome.num_done == 10
    assert outcome.wall_s == pytest.approx(START_S + 120 + START_S + 60, abs=2)


def test_a_model_that_has_ended_leaves_its_devices_also_if_more_workers_were_asked_for() -> None:
    """Two workers have the devices. Two others, which never get one, end with the model.

    Its clips are so short that it ends before anyone sees that the next model waits.
    """
    config = replace(CONFIG, workers=replace(CONFIG.workers, count=4))
    first, second = Clips([(ClipTimes(0.1), 8)]), Clips([(ClipTimes(60), 8)], model="n")
    outcome = run(farm_of(2), first, second, config=config)
    assert outcome.num_done == 16
    assert outcome.wall_s == pytest.approx(2 * START_S + 4 * 0.1 + 4 * 60, abs=0.1)


def test_what_no_farm_can_have_is_refused() -> None:
    for wrong in (
        {"num_devices": 0},
        {"num_devices": 4097},
        {"failures": 1.0},
        {"failures": -0.1},
        {"preemptions": float("nan")},
        {"store_requests_per_s": 0.0},
        {"store_requests_per_s": 1e-9},
        {"store_bytes_per_s": 1e-3},
        {"store_bytes_per_s": float("inf")},
    ):
        with pytest.raises(RefusedError, match="expected"):
            Conditions(**{"num_devices": 8, **wrong})  # type: ignore[arg-type]
