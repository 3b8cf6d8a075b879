"""One clip on the device, and the checks of its latents, frames and sound.

The device's thread queues the work of all stages at once and goes on to the next clip. The caller's
thread checks the results once the device has finished them, so that the device waits for no check.
"""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from jobs.worker.stage_marks import StageMarks
from pipelines.catalog.model_config import ModelConfig
from pipelines.clip_inputs import NO_INPUTS, ClipInputs
from pipelines.errors import FrameCheckError
from pipelines.frame_checks.latents import FetchedLatents
from pipelines.request import GenerationRequest, VideoFrames
from pipelines.video_model import PeakMemory, PendingFrames, VideoModel


@dataclass(frozen=True, eq=False)
class QueuedClip:
    """A clip whose stages are queued on the device.

    Args:
        peak_memory: the device memory that the clip needs, all of which is allocated by now.
    """

    latents: FetchedLatents
    frames: PendingFrames
    peak_memory: PeakMemory
    attention: Literal["fused", "exact"]


@dataclass(frozen=True, eq=False)
class RefusedFrames:
    """A clip that the frame checks refuse.

    Args:
        fault: the first fault found, with the statistic and its limit.
        beyond: names of the limits in `FrameLimits` that it is beyond; none for NaN and for sound
            of a wrong form or length.
        latents: a safetensors file, for inspection.
        video: the frames, with the sound if an MP4 can hold it; None if the frames hold NaN or
            infinite values.
    """

    fault: str
    beyond: tuple[str, ...]
    latents: bytes
    video: VideoFrames | None


@dataclass(frozen=True, eq=False)
class RenderedClip:
    """The frames of a clip, and the device memory and attention that made them."""

    video: VideoFrames
    peak_memory: PeakMemory
    attention: Literal["fused", "exact"]


def queue_clip(
    model: VideoModel,
    request: GenerationRequest,
    marks: StageMarks,
    *,
    uses_exact_attention: bool,
    inputs: ClipInputs = NO_INPUTS,
    ahead: Sequence[GenerationRequest] = (),
) -> QueuedClip:
    """Queue all stages of a clip; call it in the thread that owns the device.

    Args:
        ahead: requests of the clips that wait for the device.
    """
    device = model.device
    device.reset_peak_memory()
    with model.exact_attention() if uses_exact_attention else contextlib.nullcontext():
        with marks.stage("text"):
            # with exact attention, the embeddings of other clips would be other ones
            texts = model.encode_text(request, () if uses_exact_attention else ahead)
            embeddings = replace(texts, inputs=inputs)
        latents = model.denoise(request, embeddings, marks.steps())
    fetched = FetchedLatents.of(latents, device)
    with marks.stage("decode"):
        frames = model.decode(request, latents)
    attention = "exact" if uses_exact_attention else "fused"
    return QueuedClip(fetched, frames, device.peak_memory(), attention)


def check_clip(
    clip: QueuedClip, request: GenerationRequest, model: ModelConfig
) -> RenderedClip | RefusedFrames:
    """Check a clip that the device has finished, in the caller's thread."""
    from pipelines.frame_checks.checks import check_frames
    from pipelines.frame_checks.sound import check_sound

    try:
        clip.latents.check(model.frame_checks)
        video = _wanted(clip.frames.result(), request)
        check_frames(video, request.prompt, model.frame_checks)
        if video.audio is None and request.audio and model.pipeline_class.has_audio:
            raise FrameCheckError.of(f"{model.name} made no sound for the clip", "sound")
        check_sound(video, request.prompt, model.frame_checks)
    except FrameCheckError as error:
        # A value, because the traceback of an error would keep the frames in memory.
        return RefusedFrames(
            str(error), error.beyond, clip.latents.save(), _frames_of(clip, request)
        )
    return RenderedClip(video, clip.peak_memory, clip.attention)


def _wanted(video: VideoFrames, request: GenerationRequest) -> VideoFrames:
    """Return the clip without sound if its request wants none."""
    return video if request.audio else replace(video, audio=None)


def _frames_of(clip: QueuedClip, request: GenerationRequest) -> VideoFrames | None:
    """Return the frames of a refused clip, with its sound if an MP4 can hold that."""
    from pipelines.frame_checks.sound import is_encodable

    try:
        video = _wanted(clip.frames.result(), request)
    except FrameCheckError:
        return None
    return video if is_encodable(video) else replace(video, audio=None)
