"""The advice on groups of devices under a plan."""

from dataclasses import replace

from pipelines.cost.advice import advise, ulysses_degrees
from pipelines.cost.prediction import H100, break_even_bytes_per_s
from pipelines.cost.published import SIZES
from pipelines.parallel_config import ONE_DEVICE, ParallelConfig
from pipelines.request import VideoShape

LONG = SIZES["Wan 2.1 14B, 720p"]
SHORT = replace(SIZES["LTX 0.9.5, 480p"], shape=VideoShape(9, 64, 64), num_inference_steps=2)


def test_the_advice_on_a_group_shows_its_traffic_and_break_even_bandwidth() -> None:
    (line,) = advise("spring", LONG, ParallelConfig(ulysses=4))
    break_even = break_even_bytes_per_s(LONG, ParallelConfig(ulysses=4), H100)
    assert break_even is not None
    assert line.startswith("spring: ulysses 4 sends 46.5 GB a step and rank; ")
    assert (
        f"below {break_even / 1e9:.1f} GB/s it is slower than one device, at best 3.4 x as fast"
        in line
    )
    assert "28.1 GB of weights" in line


def test_the_advice_on_a_long_clip_names_the_degrees_that_divide_it() -> None:
    (line,) = advise("spring", LONG, ONE_DEVICE)
    assert line.startswith("spring: 17 minutes a clip on one device; ")
    assert "N is 2, 4, 5 or 8 (8: at best 5.7 x)" in line


def test_degrees_divide_both_heads_and_tokens() -> None:
    assert ulysses_degrees(SIZES["Wan 2.1 1.3B, 480p"]) == [2, 3, 4, 6]
    assert ulysses_degrees(SIZES["LTX 0.9.5, 480p"]) == [2]  # 4,290 tokens


def test_a_long_clip_that_no_degree_divides_gets_no_advice() -> None:
    heads = replace(LONG.geometry, num_heads=41)
    assert advise("spring", replace(LONG, geometry=heads), ONE_DEVICE) == []


def test_a_clip_of_seconds_on_one_device_needs_no_advice() -> None:
    assert advise("spring", SIZES["LTX 0.9.5, 720p"], ONE_DEVICE) == []


def test_a_clip_that_is_mostly_launches_gets_no_prediction() -> None:
    assert advise("spring", SHORT, ParallelConfig(2)) == []


def test_the_advice_says_that_a_group_gains_at_no_bandwidth() -> None:
    many_steps = replace(SHORT, num_inference_steps=1000)
    (line,) = advise(
        "spring", replace(many_steps, shape=VideoShape(17, 128, 192)), ParallelConfig(2)
    )
    assert "more than it gains at any bandwidth" in line
