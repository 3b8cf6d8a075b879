"""The 8-bit frames of a video autoencoder's output, rounded on the device, and their sound."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from pipelines.device_marks import DeviceMark
from pipelines.errors import FrameCheckError
from pipelines.request import AudioTrack, VideoFrames
from pipelines.video_model import DeviceMonitor


@dataclass(frozen=True, eq=False)
class FetchedAudio:
    """The sound of a clip on its way to the host.

    Args:
        samples: (N, channels) float32 in -1..1, whole once the mark behind it has passed.
        is_finite: False if a sample was NaN or infinite; likewise.
        sample_rate: samples a second.
    """

    samples: torch.Tensor
    is_finite: torch.Tensor
    sample_rate: int

    def result(self) -> AudioTrack:
        """Return the sound, once the device has passed the mark.

        Raises:
            FrameCheckError: a sample is NaN or infinite.
        """
        if not self.is_finite:
            raise FrameCheckError.of("the decoded sound holds NaN or infinite values", "NaN")
        return AudioTrack(self.samples.numpy(), self.sample_rate)


@dataclass(frozen=True, eq=False)
class FetchedFrames:
    """The frames of a clip on their way to the host.

    Args:
        frames: (T, H, W, 3) uint8, on the host, whole once `ready` has passed.
        is_finite: False if a value was NaN or infinite before it was rounded; likewise.
        ready: the mark behind all copies.
        audio: sound of the clip; None without sound.
    """

    frames: torch.Tensor
    is_finite: torch.Tensor
    fps: float
    ready: DeviceMark
    audio: FetchedAudio | None = None

    def result(self) -> VideoFrames:
        """Wait for the frames.

        Raises:
            FrameCheckError: a value is NaN or infinite. As bytes it would be a black clip that
                looks like success. Likewise for the sound.
        """
        self.ready.wait()
        if not self.is_finite:
            raise FrameCheckError.of("the decoded video holds NaN or infinite values", "NaN")
        audio = None if self.audio is None else self.audio.result()
        return VideoFrames(self.frames.numpy(), self.fps, audio)


def fetch_audio(
    waveform_BCN: torch.Tensor, sample_rate: int, duration_s: float, device: DeviceMonitor
) -> FetchedAudio:
    """Cut or pad one sound to a duration, and queue its copy to the host.

    Autoencoders of sound give a little less or more than the video lasts; the rest is silence.
    """
    if waveform_BCN.shape[0] != 1:
        raise ValueError(f"expected one sound, not a batch of {waveform_BCN.shape[0]}")
    is_finite = torch.isfinite(waveform_BCN).all()
    missing = round(duration_s * sample_rate) - waveform_BCN.shape[2]  # negative: cut
    fitted_CN = functional.pad(waveform_BCN[0].float(), (0, missing)).clamp(-1, 1)
    return FetchedAudio(
        device.fetch(fitted_CN.T.contiguous()), device.fetch(is_finite), sample_rate
    )


def fetch_frames(
    video_BCTHW: torch.Tensor,
    fps: float,
    device: DeviceMonitor,
    audio: FetchedAudio | None = None,
) -> FetchedFrames:
    """Round one video of values in -1..1 to bytes, and queue their copy to the host.

    Diffusers' own export truncates and so darkens by half a level.

    Args:
        audio: sound of the clip, whose copy is queued already.
    """
    if video_BCTHW.shape[0] != 1:
        raise ValueError(f"expected one video, not a batch of {video_BCTHW.shape[0]}")
    is_finite = torch.isfinite(video_BCTHW).all()
    levels_CTHW = (video_BCTHW[0].float() + 1).mul_(127.5).round_().clamp_(0, 255)
    frames_THWC = levels_CTHW.permute(1, 2, 3, 0).to(torch.uint8).contiguous()
    return FetchedFrames(
        device.fetch(frames_THWC), device.fetch(is_finite), fps, device.mark(), audio
    )
