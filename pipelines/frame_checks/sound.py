"""The checks of a clip's sound: they refuse NaN, silence, clipping and a wrong length.

Like the checks of frames they look for broken renders, not for ugly ones. Loads without torch.
"""

import math
from dataclasses import dataclass

import numpy as np

from pipelines.errors import FrameCheckError
from pipelines.frame_checks.limits import FrameLimits, asks_for
from pipelines.request import AudioTrack, VideoFrames

MAX_CHANNELS = 2
FULL_SCALE = 1.0


@dataclass(frozen=True)
class SoundStatistics:
    """The statistics of a clip's sound.

    Args:
        loudness: root mean square of all samples, in parts of full scale.
        clipping: share of samples at full scale or beyond.
    """

    loudness: float
    clipping: float


def check_sound(video: VideoFrames, prompt: str, limits: FrameLimits) -> None:
    """Refuse sound that is broken, silent or clipped; a clip without sound passes.

    The prompt alone can ask for silence: negative prompts name sounds because they are bad.

    Raises:
        FrameCheckError: the sound is not (N, 1 or 2) float32, holds NaN or infinite values, is
            longer or shorter than the video by more than a frame, or is beyond a limit.
    """
    if video.audio is None:
        return
    if not _has_right_form(video.audio.samples):
        raise FrameCheckError.of(
            f"the sound must be float32 samples (N, channels) with 1 or {MAX_CHANNELS} channels, "
            f"not {video.audio.samples.dtype} {video.audio.samples.shape}",
            "sound",
        )
    if not np.isfinite(video.audio.samples).all():
        raise FrameCheckError.of("the sound holds NaN or infinite values", "NaN")
    _check_length(video, video.audio)
    found = measure_sound(video.audio.samples)
    is_silence_asked = asks_for(prompt, limits.silence_words)
    if limits.silence is not None and found.loudness < limits.silence and not is_silence_asked:
        raise FrameCheckError.of(
            f"the clip is silent: the root mean square of its sound is {found.loudness:.3g} of "
            f"full scale, below the limit of {limits.silence:g} (frame_checks.silence); audio: "
            "false renders a clip without sound",
            "silence",
            ("silence",),
        )
    if limits.clipping is not None and found.clipping > limits.clipping:
        raise FrameCheckError.of(
            f"the sound is clipped: a share of {found.clipping:.3g} of its samples is at full "
            f"scale or beyond, above the limit of {limits.clipping:g} (frame_checks.clipping)",
            "clipping",
            ("clipping",),
        )


def is_encodable(video: VideoFrames) -> bool:
    """Return True for a clip without sound, and for one with sound that an MP4 can hold."""
    if video.audio is None:
        return True
    samples = video.audio.samples
    return _has_right_form(samples) and bool(np.isfinite(samples).all())


def _has_right_form(samples: np.ndarray) -> bool:
    return (
        samples.ndim == 2
        and samples.dtype.name == "float32"
        and len(samples) > 0
        and 1 <= samples.shape[1] <= MAX_CHANNELS
    )


def measure_sound(samples: np.ndarray) -> SoundStatistics:
    """Measure all samples of all channels."""
    loudness = math.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    return SoundStatistics(loudness, float(np.mean(np.abs(samples) >= FULL_SCALE)))


def _check_length(video: VideoFrames, audio: AudioTrack) -> None:
    frame_s = 1 / video.fps
    sound_s, video_s = len(audio.samples) / audio.sample_rate, len(video.frames) * frame_s
    if abs(sound_s - video_s) > frame_s:
        raise FrameCheckError.of(
            f"the sound lasts {sound_s:.4g} s and the video {video_s:.4g} s: they must be equal "
            f"within one frame, {frame_s:.3g} s",
            "sound",
        )
