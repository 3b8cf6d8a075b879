"""The time that is left of a run, and its range, held against simulated runs."""

import math
import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.run.progress.time_left import (
    NUM_BLOCKS,
    LastClips,
    TimeLeft,
    WorkDone,
    block_rates,
    time_left,
)
from jobs.simulation.conditions import Conditions
from tests.builders.tallied import KindOfClips, TalliedRun

Scenario = Callable[[int], tuple[list[KindOfClips], Conditions]]


def varied_times(seed: int, mean_s: float, deviation: float) -> list[float]:
    """Return times of clips whose logarithm is normal."""
    chance = random.Random(seed)
    return [mean_s * math.exp(chance.gauss(0, deviation)) for _ in range(100)]


def equal_clips(seed: int) -> tuple[list[KindOfClips], Conditions]:
    return [KindOfClips(60, varied_times(seed, 120, 0.02))], Conditions(6, seed=seed)


def varied_clips(seed: int) -> tuple[list[KindOfClips], Conditions]:
    return [KindOfClips(90, varied_times(seed, 120, 0.4))], Conditions(6, seed=seed)


def lost_workers(seed: int) -> tuple[list[KindOfClips], Conditions]:
    clips = [KindOfClips(80, varied_times(seed, 200, 0.1))]
    return clips, Conditions(8, failures=0.05, preemptions=0.3, seed=seed)


def two_models(seed: int) -> tuple[list[KindOfClips], Conditions]:
    clips = [
        KindOfClips(20, varied_times(seed, 600, 0.05), predicted_s=100.0),
        KindOfClips(60, varied_times(seed, 100, 0.05), predicted_s=19.0, model="n"),
    ]
    return clips, Conditions(6, seed=seed)


@pytest.mark.parametrize("scenario", [equal_clips, varied_clips, lost_workers, two_models])
def test_most_simulated_runs_end_within_the_range(scenario: Scenario) -> None:
    """The range is also of use: it becomes narrow once the run has a history."""
    found: list[tuple[float, TimeLeft]] = []
    for seed in range(2 if scenario is two_models else 4):
        clips, conditions = scenario(seed)
        run = TalliedRun(clips, conditions)
        run.run()
        assert run.tally.num_left == 0
        for share in (0.2, 0.35, 0.5, 0.65, 0.8):
            actual_s, left = run.at_share(share)
            assert left is not None
            found.append((actual_s, left))
    within = [left.low_s <= actual_s <= left.high_s for actual_s, left in found]
    assert sum(within) >= 0.8 * len(found), found
    widths = sorted(left.high_s / left.low_s for _, left in found)
    assert widths[len(widths) // 2] < 2, "half of the ranges are narrower than a factor of two"
    errors = sorted(abs(math.log(actual_s / left.likely_s)) for actual_s, left in found)
    assert errors[len(errors) // 2] < math.log(1.2), "half of the times are right within 20 %"


def test_there_is_an_estimate_before_the_first_clip_has_ended() -> None:
    run = TalliedRun([KindOfClips(12, [600.0])], Conditions(6))
    run.run()
    actual_s, left = run.at_share(0.25)
    assert left is not None
    assert left.low_s <= actual_s <= left.high_s
    assert not [one for at_s, one in run.estimates if at_s < 60 and one], "no worker was ready"


def test_a_kind_has_its_rate_its_seconds_and_its_counts() -> None:
    clips = [KindOfClips(20, [100.0], 5.0), KindOfClips(30, [50.0], 2.5, num_steps=8)]
    run = TalliedRun(clips, Conditions(4))
    run.run()
    first, second = sorted(run.tally.kinds.statuses(), key=lambda one: -one.num_inference_steps)
    assert (first.num_clips, first.num_committed, first.num_in_flight) == (20, 20, 0)
    assert (first.clip_s, second.clip_s) == (100.0, 50.0)
    assert first.clips_per_hour == pytest.approx(4 * 36, rel=0.1)
    assert second.clips_per_hour == pytest.approx(4 * 72, rel=0.15)


@pytest.mark.parametrize("clip_s", [2.0, 3.0, 9.0])
def test_clips_that_begin_and_end_between_two_samples_have_the_rate_of_the_run(
    clip_s: float,
) -> None:
    run = TalliedRun([KindOfClips(400, [clip_s])], Conditions(2))
    run.run()
    (kind,) = run.tally.kinds.statuses()
    assert kind.clips_per_hour == pytest.approx(2 * 3600 / clip_s, rel=0.1)


# the formula

moments = st.lists(st.tuples(st.floats(0.1, 100), st.floats(0, 100)), min_size=1, max_size=60)


def history(steps: Sequence[tuple[float, float]]) -> list[WorkDone]:
    done = [WorkDone(0.0, 0.0)]
    for wait_s, work in steps:
        done.append(WorkDone(done[-1].at_s + wait_s, done[-1].work + work))
    return done


@given(moments, st.floats(0, 1e4), st.floats(0, 1e3), st.floats(0, 1e3), st.floats(0, 1))
def test_the_likely_time_lies_in_its_range(
    steps: list[tuple[float, float]], left: float, longest_s: float, waiting_s: float, unseen: float
) -> None:
    found = time_left(history(steps), left, LastClips(60, longest_s, waiting_s, 1.2), unseen)
    if found is not None:
        assert 0 <= found.low_s <= found.likely_s <= found.high_s < math.inf
        assert found.likely_s >= longest_s or left == 0


def test_a_steady_farm_has_a_narrow_range_and_an_unsteady_one_a_wide_range() -> None:
    steady = time_left(history([(10, 5)] * 80), 500)
    assert steady == pytest.approx((1000, 1000, 1000))
    unsteady = time_left(history(([(10, 0)] * 20 + [(10, 10)] * 20) * 2), 500)
    assert unsteady is not None
    assert unsteady.high_s > 1.3 * unsteady.likely_s


def test_a_kind_that_was_never_measured_widens_the_range() -> None:
    found = time_left(history([(10, 5)] * 80), 500, unseen=1.0)
    assert found is not None
    assert found.high_s / found.likely_s == pytest.approx(found.likely_s / found.low_s)
    assert 1.2 < found.high_s / found.likely_s < 1.5


def test_a_farm_at_which_nothing_goes_on_has_no_estimate() -> None:
    assert time_left(history([(10, 0)] * 20), 500) is None
    assert time_left([], 500) is None
    assert time_left([], 0) == TimeLeft(0, 0, 0)


@given(moments)
def test_a_window_has_at_most_eight_parts_which_make_up_all_of_it(
    steps: list[tuple[float, float]],
) -> None:
    done = history(steps)
    rates = block_rates(done)
    assert 1 <= len(rates) <= NUM_BLOCKS
    total = done[-1].work / done[-1].at_s
    assert min(rates) - 1e-6 <= total <= max(rates) + 1e-6
