"""The frame checks refuse broken clips, pass good ones, and name the fault."""

import pickle
import time
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from nag.params import NagParams
from pipelines.errors import FrameCheckError
from pipelines.frame_checks.checks import check_frames, measure_frames
from pipelines.frame_checks.latents import check_latents
from pipelines.frame_checks.limits import FrameLimits
from pipelines.request import GenerationRequest, SamplingParams, VideoFrames, VideoShape
from tests.fakes.model import FakeModel

LIMITS = FrameLimits()
OFF = FrameLimits(None, None, None, None, None, None, None)
SIZE = (9, 32, 48, 3)
REQUEST = GenerationRequest(
    "a kite",
    "",
    VideoShape(9, 32, 48),
    8.0,
    SamplingParams(2, 1.0, None, 0),
    NagParams(nag_scale=1),
)


def good(shape: VideoShape = REQUEST.shape) -> np.ndarray:
    """A bright bar that moves over a smooth ramp."""
    place_W = np.linspace(0, 1, shape.width)
    frames = [
        60
        + 60 * place_W
        + 90 * np.exp(-(((place_W - 0.1 - 0.8 * time / max(shape.num_frames - 1, 1)) / 0.1) ** 2))
        for time in range(shape.num_frames)
    ]
    grey_TW = np.stack(frames).round().astype(np.uint8)
    return np.ascontiguousarray(
        np.broadcast_to(grey_TW[:, None, :, None], (shape.num_frames, shape.height, shape.width, 3))
    )


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)


def saturated_blocks() -> np.ndarray:
    """Return moving blocks of 8 x 8 pixels, in which no neighbours differ as they do in noise."""
    corners = np.random.default_rng(0).integers(0, 2, (4, 6, 3), np.uint8) * np.uint8(255)
    frame = corners.repeat(8, axis=0).repeat(8, axis=1)
    return np.stack([np.roll(frame, time, axis=1) for time in range(9)])


def unrelated_frames() -> np.ndarray:
    """Return smooth frames, none like the one before."""
    frames = good()
    frames[1::2] = 255 - frames[1::2]
    return frames


def still() -> np.ndarray:
    return good()[:1].repeat(9, axis=0)


# Fault: frames, message, the limit that decides, a prompt that asks for it.
BAD = {
    "black": (
        np.full(SIZE, 4, np.uint8),
        r"the clip is black: .* level 4 of .* limit of 12",
        "black",
        "a dark cave",
    ),
    "flat": (
        np.full(SIZE, 127, np.uint8),
        r"the clip is flat: .* 0 of .* limit of 1 ",
        "flat",
        "thick fog",
    ),
    "frozen": (
        still(),
        r"the clip is frozen: .* 0 of .* limit of 0\.05",
        "frozen",
        "a frozen lake, standing still",
    ),
    "noise": (
        noise(),
        r"the clip is noise: the squared difference of neighbouring pixels is .* limit of 0\.7 ",
        "grain",
        "falling confetti",
    ),
    "flicker": (
        unrelated_frames(),
        r"the clip is noise: the squared difference of neighbouring frames is .* limit of 0\.9 ",
        "flicker",
        "strobe lights",
    ),
    "saturated": (
        saturated_blocks(),
        r"noise: .* saturated .* share of 0\.\d+.*0\.5",
        "saturation",
        "neon signs",
    ),
}


def check(frames: np.ndarray, prompt: str = "a kite", limits: FrameLimits = LIMITS) -> None:
    check_frames(VideoFrames(frames, 8.0), prompt, limits)


def test_a_moving_clip_passes() -> None:
    check(good())


@pytest.mark.parametrize("bad", BAD)
def test_a_broken_clip_is_refused_with_the_number_and_the_limit(bad: str) -> None:
    frames, message, field, _ = BAD[bad]
    with pytest.raises(FrameCheckError, match=message) as refused:
        check(frames)
    assert f"(frame_checks.{field})" in str(refused.value)
    assert refused.value.check == field


def test_the_name_of_the_failed_check_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(FrameCheckError.of("the clip is flat", "flat")))
    assert isinstance(error, FrameCheckError)
    assert (str(error), error.check) == ("the clip is flat", "flat")


@pytest.mark.parametrize("bad", BAD)
def test_a_fault_that_the_prompt_asks_for_passes(bad: str) -> None:
    frames, _, _, prompt = BAD[bad]
    check(frames, prompt)


@pytest.mark.parametrize("bad", ["black", "flat", "frozen", "noise"])
def test_a_prompt_that_asks_for_another_fault_does_not_excuse_this_one(bad: str) -> None:
    for other in {"black", "flat", "frozen", "noise"} - {bad}:
        with pytest.raises(FrameCheckError):
            check(BAD[bad][0], BAD[other][3])


@pytest.mark.parametrize("bad", BAD)
def test_null_switches_a_check_off(bad: str) -> None:
    frames, _, field, _ = BAD[bad]
    check(frames, limits=OFF)
    with pytest.raises(FrameCheckError):
        check(frames, limits=replace(OFF, **{field: getattr(LIMITS, field)}))


def test_a_models_own_words_replace_the_default_ones() -> None:
    black = BAD["black"][0]
    check(black, "ink", replace(LIMITS, black_words=("ink",)))
    with pytest.raises(FrameCheckError, match="black"):
        check(black, "night", replace(LIMITS, black_words=("ink",)))


def test_a_small_light_in_the_dark_passes() -> None:
    frames = np.zeros((9, 480, 832, 3), np.uint8)
    for index in range(9):
        frames[index, 200:230, 100 + 10 * index : 130 + 10 * index] = 255
    check(frames)


def test_a_dark_clip_with_a_few_bright_pixels_is_black() -> None:
    frames = np.zeros((9, 64, 64, 3), np.uint8)
    frames[:, 10, 10:14] = 255
    with pytest.raises(FrameCheckError, match="black"):
        check(frames)


def test_a_clip_with_one_good_frame_is_neither_black_nor_flat_nor_frozen() -> None:
    frames = np.zeros(SIZE, np.uint8)
    frames[5] = good()[5]
    check(frames)


def test_colours_of_one_brightness_are_not_flat() -> None:
    frames = np.full(SIZE, (127, 127, 127), np.uint8)
    frames[:, :, 10:20] = (45, 175, 70)  # as bright as the grey to the eye
    with pytest.raises(FrameCheckError, match="frozen"):
        check(frames)


def test_ink_on_white_paper_is_not_blown_out() -> None:
    frames = np.full(SIZE, 255, np.uint8)
    for index in range(9):
        frames[index, 4:28, 4 + 2 * index : 14 + 2 * index] = 0
    check(frames)


def test_slow_motion_that_no_two_neighbours_show_is_motion() -> None:
    frames = np.stack(
        [np.clip(good()[0].astype(int) + time // 4, 0, 255) for time in range(9)]
    ).astype(np.uint8)
    check(frames)


def test_one_frame_alone_is_neither_frozen_nor_noise_in_time() -> None:
    check(good(VideoShape(1, 32, 48)))


def test_the_smallest_of_frames_can_be_measured() -> None:
    found = measure_frames(np.zeros((1, 2, 2, 3), np.uint8))
    assert (found.brightness, found.contrast, found.motion, found.flicker) == (0, 0, None, None)


@pytest.mark.parametrize(("statistic", "expected"), [("grain", 1.0), ("flicker", 1.0)])
def test_white_noise_has_a_grain_and_a_flicker_of_1(statistic: str, expected: float) -> None:
    assert getattr(measure_frames(noise()), statistic) == pytest.approx(expected, abs=0.1)


def test_large_frames_are_judged_as_small_ones_are() -> None:
    small, large = (measure_frames(good(VideoShape(5, size, 832))) for size in (64, 640))
    assert asdict(large) == pytest.approx(asdict(small), rel=1e-4)  # every row is the same


def test_a_clip_of_5_seconds_at_480p_is_judged_in_well_under_a_second() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (81, 480, 832, 3), np.uint8)
    took_s: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        measure_frames(frames)
        took_s.append(time.perf_counter() - start)
    assert min(took_s) < 2  # 0.3 measured; the bound leaves room for a busy machine


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_latents_that_are_not_finite_are_counted(value: float, dtype: torch.dtype) -> None:
    latents = torch.randn(1, 16, 5, 8, 10, generator=torch.Generator().manual_seed(0)).to(dtype)
    check_latents(latents)
    latents[0, 3, 2, :2, 4] = value
    with pytest.raises(
        FrameCheckError, match=r"^2 of 6,400 latent values are NaN or infinite$"
    ) as refused:
        check_latents(latents)
    assert refused.value.check == "NaN"


def test_exploded_latents_are_refused_and_the_limit_is_the_models() -> None:
    latents = torch.randn(1, 16, 5, 8, 10, generator=torch.Generator().manual_seed(0))
    with pytest.raises(
        FrameCheckError, match=r"exploded: their root mean square is 20\.02, above the limit of 10 "
    ) as refused:
        check_latents(latents * 20)
    assert refused.value.check == "spread"
    check_latents(latents * 20, FrameLimits(spread=30))
    check_latents(latents * 20, FrameLimits(spread=None))
    # float32 could not hold the squares.
    with pytest.raises(FrameCheckError, match=r"mean square is 1\.001e\+30,"):
        check_latents(latents * 1e30)


def test_the_fake_model_makes_clips_that_depend_on_the_request_alone() -> None:
    family = FakeModel()
    clips: set[bytes] = set()
    for seed in range(40):
        for width in (16, 48):
            request = replace(
                REQUEST,
                sampling=replace(REQUEST.sampling, seed=seed),
                shape=VideoShape(5, 16, width),
            )
            latents = family.denoise(request, family.encode_text(request), lambda _step: None)
            check_latents(latents)
            video = family.decode(request, latents)
            assert video.frames.shape == (5, 16, width, 3)
            check_frames(video, request.prompt, LIMITS)
            assert np.array_equal(FakeModel().decode(request, latents).frames, video.frames)
            clips.add(video.frames.tobytes())
    assert len(clips) == 80


@pytest.mark.parametrize(
    ("prompt", "message"),
    [("unlit", "is black"), ("flat", "is flat"), ("stuck 2", "is frozen"), ("garbled", "is noise")],
)
def test_the_fake_model_makes_each_broken_clip(prompt: str, message: str) -> None:
    family, request = FakeModel(), replace(REQUEST, prompt=prompt)
    latents = family.denoise(request, family.encode_text(request), lambda _step: None)
    check_latents(latents)
    with pytest.raises(FrameCheckError, match=message):
        check_frames(family.decode(request, latents), prompt, LIMITS)


@pytest.mark.parametrize(
    ("prompt", "passes_with_exact_attention"), [("nan", False), ("nan unless exact", True)]
)
def test_the_fake_model_makes_nan_latents_always_or_unless_attention_is_exact(
    prompt: str, passes_with_exact_attention: bool
) -> None:
    family, request = FakeModel(), replace(REQUEST, prompt=prompt)
    embeddings = family.encode_text(request)

    def is_nan() -> bool:
        return bool(family.denoise(request, embeddings, lambda _step: None).isnan().any())

    assert is_nan()
    with family.exact_attention():
        assert is_nan() is not passes_with_exact_attention
    assert is_nan()
