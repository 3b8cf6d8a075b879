from dataclasses import replace

import numpy as np
import pytest

from pipelines.errors import FrameCheckError
from pipelines.frame_checks.limits import FrameLimits
from pipelines.frame_checks.sound import check_sound, is_encodable, measure_sound
from pipelines.request import AudioTrack, VideoFrames

RATE, FPS = 16_000, 8.0
FRAMES = np.zeros((16, 2, 2, 3), np.uint8)  # two seconds
LIMITS = FrameLimits()


def wave(amplitude: float, num_samples: int = 2 * RATE) -> np.ndarray:
    time_s = np.arange(num_samples) / RATE
    samples = amplitude * np.sin(2 * np.pi * 220 * time_s)
    return np.stack([samples, samples], axis=1).astype(np.float32)


def clip(samples: np.ndarray) -> VideoFrames:
    return VideoFrames(FRAMES, FPS, AudioTrack(samples, RATE))


def refusal_of(samples: np.ndarray, prompt: str = "a bell", **limits: float | None) -> str:
    with pytest.raises(FrameCheckError) as caught:
        check_sound(clip(samples), prompt, replace(LIMITS, **limits))
    return f"{caught.value.check} {caught.value.beyond}: {caught.value}"


def test_sound_and_no_sound_pass() -> None:
    check_sound(clip(wave(0.3)), "a bell", LIMITS)
    check_sound(clip(wave(0.3)[:, :1]), "a bell", LIMITS)
    check_sound(VideoFrames(FRAMES, FPS), "a bell", LIMITS)


def test_statistics_are_parts_of_full_scale() -> None:
    found = measure_sound(np.array([[1.0, -1.0], [0.5, -0.5]], np.float32))
    assert found.loudness == pytest.approx(np.sqrt((1 + 1 + 0.25 + 0.25) / 4))
    assert found.clipping == 0.5


@pytest.mark.parametrize(
    "samples",
    [
        wave(0.3)[:, 0],
        wave(0.3).astype(np.float64),
        np.zeros((2 * RATE, 3), np.float32),
        np.zeros((0, 2), np.float32),
    ],
)
def test_samples_of_another_form_are_refused(samples: np.ndarray) -> None:
    assert refusal_of(samples).startswith("sound (): the sound must be float32 samples (N, ")
    assert not is_encodable(clip(samples))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_not_finite_is_refused(value: float) -> None:
    samples = wave(0.3)
    samples[77, 1] = value
    assert refusal_of(samples) == "NaN (): the sound holds NaN or infinite values"
    assert not is_encodable(clip(samples))


@pytest.mark.parametrize("frames_off", [-1.5, 1.5])
def test_sound_of_another_length_is_refused(frames_off: float) -> None:
    assert "the video 2 s: they must be equal within one frame, 0.125 s" in refusal_of(
        wave(0.3, round((2 + frames_off / FPS) * RATE))
    )
    check_sound(clip(wave(0.3, round((2 + frames_off / FPS / 2) * RATE))), "a bell", LIMITS)


def test_silence_is_refused_unless_the_prompt_asks_for_it_or_the_limit_is_off() -> None:
    silent = wave(0.00001)
    assert refusal_of(silent).startswith("silence ('silence',): the clip is silent")
    assert "below the limit of 0.0001 (frame_checks.silence)" in refusal_of(silent)
    check_sound(clip(silent), "a bell that hangs in Silence", LIMITS)
    check_sound(clip(silent), "a bell", replace(LIMITS, silence=None))
    with pytest.raises(FrameCheckError):
        check_sound(clip(silent), "a silencer", LIMITS)


def test_clipped_sound_is_refused_above_the_stated_share() -> None:
    assert refusal_of(wave(20.0)).startswith("clipping ('clipping',): the sound is clipped")
    check_sound(clip(wave(1.005)), "a bell", LIMITS)
    check_sound(clip(wave(20.0)), "a bell", replace(LIMITS, clipping=None))


def test_words_allow_silence_and_never_clipping() -> None:
    assert "silent" in LIMITS.words_of("silence")
    assert LIMITS.words_of("clipping") == ()
