"""Predictions from the counts: times, speed-ups, break-even bandwidths."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.cost.prediction import (
    H100,
    INTERCONNECTS,
    NVLINK_H100,
    START_S,
    Device,
    Interconnect,
    Work,
    best_speed_up,
    break_even_bytes_per_s,
    predict,
    speed_up,
    step_operations,
)
from pipelines.cost.published import PUBLIC_FIGURES, SIZES, WAN_14B, PublicFigure
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import VideoShape

GROUPS = st.builds(
    ParallelConfig, st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4])
).filter(lambda parallel: parallel.degree > 1)


def link(bytes_per_s: float) -> Interconnect:
    return Interconnect("made up", bytes_per_s, START_S)


def test_the_speed_of_a_device_follows_from_the_published_seconds_of_a_step() -> None:
    # Image tokens have keys and values as text has.
    image_to_video = replace(WAN_14B, num_text_tokens=512 + 257)
    step = Work(image_to_video, VideoShape(81, 480, 832), 1, "cfg")
    assert H100.flops_per_s == pytest.approx(step_operations(step) / 9.77, rel=0.002)


@given(st.sampled_from(list(SIZES.values())), GROUPS, st.floats(1e12, 2e15))
def test_at_the_break_even_bandwidth_a_group_is_as_fast_as_one_device(
    work: Work, parallel: ParallelConfig, flops_per_s: float
) -> None:
    device = Device("made up", flops_per_s)
    break_even = break_even_bytes_per_s(work, parallel, device)
    if break_even is None:
        assert speed_up(work, parallel, device, link(1e30)) < 1
    else:
        assert speed_up(work, parallel, device, link(break_even)) == pytest.approx(1, rel=1e-9)
        assert speed_up(work, parallel, device, link(0.99 * break_even)) < 1
        assert speed_up(work, parallel, device, link(1.01 * break_even)) > 1


def test_a_group_on_a_device_that_needs_no_time_never_breaks_even() -> None:
    work = SIZES["LTX 0.9.5, its own size"]
    assert break_even_bytes_per_s(work, ParallelConfig(2), Device("instant", 1e20)) is None


@given(st.sampled_from(list(SIZES.values())), GROUPS)
def test_no_group_finishes_more_clips_than_as_many_single_workers(
    work: Work, parallel: ParallelConfig
) -> None:
    for interconnect in INTERCONNECTS:
        gain = speed_up(work, parallel, H100, interconnect)
        assert gain < best_speed_up(work, parallel, H100) < parallel.degree


def test_half_as_fast_a_device_breaks_even_at_half_the_bandwidth() -> None:
    work, parallel = SIZES["Wan 2.1 14B, 720p"], ParallelConfig(4)
    fast, slow = (
        break_even_bytes_per_s(work, parallel, Device("", H100.flops_per_s * factor))
        for factor in (1, 0.5)
    )
    assert fast is not None
    assert slow == pytest.approx(fast / 2, rel=0.01)


def test_text_and_decoding_are_three_per_cent_of_fifty_steps_with_classifier_free_guidance() -> (
    None
):
    time = predict(
        Work(WAN_14B, VideoShape(81, 480, 832), 50, "cfg"), ONE_DEVICE, H100, NVLINK_H100
    )
    assert time.alone_s / time.total_s == pytest.approx(0.03, abs=0.001)


def test_one_device_waits_for_no_interconnect() -> None:
    time = predict(SIZES["Wan 2.1 14B, 480p"], ONE_DEVICE, H100, link(1.0))
    assert time.start_s == time.send_s == 0


@pytest.mark.parametrize("figure", PUBLIC_FIGURES, ids=[figure.setup for figure in PUBLIC_FIGURES])
def test_a_public_figure_is_not_above_its_prediction(figure: PublicFigure) -> None:
    predicted = speed_up(
        figure.work, ParallelConfig(figure.num_devices), figure.device, figure.interconnect
    )
    assert figure.speed_up <= predicted
