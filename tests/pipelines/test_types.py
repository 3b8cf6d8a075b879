from dataclasses import replace

import pytest

from nag.params import NagParams
from pipelines.errors import RequestError
from pipelines.types import GenerationRequest, SamplingParams, VideoShape

SAMPLING = SamplingParams(8, 1.0, None, 0)
REQUEST = GenerationRequest("a circle", "red", VideoShape(17, 64, 64), 8.0, SAMPLING, NagParams())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 64, 64), "num_frames must be between 1 and 10,000, not 0"),
        ((17, 63, 64), "height must be even"),
        ((17, 64, 2**40), "width must be between 1 and 8,192"),
        ((17, -64, 64), "height must be between"),
    ],
)
def test_a_shape_that_no_video_has_is_refused(values: tuple[int, int, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        VideoShape(*values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, 1.0, None, 0), "num_inference_steps must be between 1 and 1000, not 0"),
        ((8, 0.5, None, 0), "guidance_scale must be at least 1"),
        ((8, float("nan"), None, 0), "guidance_scale must be at least 1"),
        ((8, 1.0, 0.0, 0), "flow_shift must be above 0"),
        ((8, 1.0, float("inf"), 0), "flow_shift must be above 0"),
        ((8, 1.0, None, -1), "seed must be between 0 and"),
        ((8, 1.0, None, 2**63), "seed must be between 0 and"),
    ],
)
def test_sampling_outside_its_range_is_refused(values: tuple[int, float, float | None, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        SamplingParams(*values)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "prompt is empty"),
        (" \n\t", "prompt is empty"),
        ("a\x00b", r"control character U\+0000 at position 2"),
        ("\x1b[2J", r"control character U\+001B at position 1"),
        ("ab\x85", r"control character U\+0085 at position 3"),
        ("\ud800", r"control character U\+D800"),
        ("x" * 20_001, "has 20,001 characters; at most 20,000"),
    ],
)
def test_text_that_is_no_prompt_is_refused(prompt: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        replace(REQUEST, prompt=prompt)


def test_any_other_text_is_a_prompt() -> None:
    assert replace(REQUEST, prompt="Ünïcode 雪 🎬\tand\nlines").prompt


@pytest.mark.parametrize("fps", [0.0, -1.0, 241.0, float("nan"), float("inf")])
def test_a_rate_that_no_player_has_is_refused(fps: float) -> None:
    with pytest.raises(RequestError, match="fps must be between 1 and 240"):
        replace(REQUEST, fps=fps)


@pytest.mark.parametrize(
    ("negative_prompt", "nag", "has_nag"),
    [("red", NagParams(), True), ("", NagParams(), False), (" ", NagParams(), False), ("red", NagParams(1.0), False)],
)
def test_nag_acts_when_it_has_a_negative_prompt_and_a_scale(
    negative_prompt: str, nag: NagParams, has_nag: bool
) -> None:
    assert replace(REQUEST, negative_prompt=negative_prompt, nag=nag).has_nag is has_nag


def test_a_step_range_that_holds_no_step_is_refused() -> None:
    with pytest.raises(RequestError, match="hold none of the 8 steps"):
        replace(REQUEST, nag=NagParams(nag_start=0.9))
    assert replace(REQUEST, nag=NagParams(nag_start=0.9), negative_prompt="")
