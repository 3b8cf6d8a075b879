"""One clip on the device: text, denoise, decode, and the frame checks of the result."""

import contextlib
from dataclasses import dataclass
from typing import Literal

from jobs.worker.timing import StageClock
from pipelines.errors import FrameCheckError
from pipelines.frame_checks.limits import FrameLimits
from pipelines.request import GenerationRequest, VideoFrames
from pipelines.video_model import PeakMemory, VideoModel


@dataclass(frozen=True, eq=False)
class RefusedFrames:
    """The fault that the frame checks found in a clip, and its latents for inspection."""

    fault: str
    latents: bytes


@dataclass(frozen=True, eq=False)
class RenderedClip:
    """The frames of a clip, and the device memory and attention that made them."""

    video: VideoFrames
    peak_memory: PeakMemory
    attention: Literal["fused", "exact"]


def render_frames(
    model: VideoModel,
    request: GenerationRequest,
    limits: FrameLimits,
    clock: StageClock,
    *,
    uses_exact_attention: bool,
) -> RenderedClip | RefusedFrames:
    """Render a clip; call it in the thread that owns the device."""
    from pipelines.frame_checks.checks import check_frames, check_latents, save_latents

    model.device.reset_peak_memory()
    with model.exact_attention() if uses_exact_attention else contextlib.nullcontext():
        with clock.measure_device("text"):
            embeddings = model.encode_text(request)
        latents = model.denoise(request, embeddings, clock.steps())
    try:
        check_latents(latents, limits)
        with clock.measure_device("decode"):
            video = model.decode(request, latents)
        check_frames(video, request.prompt, limits)
    except FrameCheckError as error:
        # A value, because the traceback of an error would keep the frames in memory.
        return RefusedFrames(str(error), save_latents(latents))
    attention = "exact" if uses_exact_attention else "fused"
    return RenderedClip(video, model.device.peak_memory(), attention)
