"""The 8-bit frames of a video autoencoder's output, rounded on the device."""

from dataclasses import dataclass

import torch

from pipelines.device_marks import DeviceMark
from pipelines.errors import FrameCheckError
from pipelines.request import VideoFrames
from pipelines.video_model import DeviceMonitor


@dataclass(frozen=True, eq=False)
class FetchedFrames:
    """The frames of a clip on their way to the host.

    Args:
        frames: (T, H, W, 3) uint8, on the host, whole once `ready` has passed.
        is_finite: False if a value was NaN or infinite before it was rounded; likewise.
        ready: the mark behind both copies.
    """

    frames: torch.Tensor
    is_finite: torch.Tensor
    fps: float
    ready: DeviceMark

    def result(self) -> VideoFrames:
        """Wait for the frames.

        Raises:
            FrameCheckError: a value is NaN or infinite. As bytes it would be a black clip that
                looks like success.
        """
        self.ready.wait()
        if not self.is_finite:
            raise FrameCheckError.of("the decoded video holds NaN or infinite values", "NaN")
        return VideoFrames(self.frames.numpy(), self.fps)


def fetch_frames(video_BCTHW: torch.Tensor, fps: float, device: DeviceMonitor) -> FetchedFrames:
    """Round one video of values in -1..1 to bytes, and queue their copy to the host.

    Diffusers' own export truncates and so darkens by half a level.
    """
    if video_BCTHW.shape[0] != 1:
        raise ValueError(f"expected one video, not a batch of {video_BCTHW.shape[0]}")
    is_finite = torch.isfinite(video_BCTHW).all()
    levels_CTHW = (video_BCTHW[0].float() + 1).mul_(127.5).round_().clamp_(0, 255)
    frames_THWC = levels_CTHW.permute(1, 2, 3, 0).to(torch.uint8).contiguous()
    return FetchedFrames(device.fetch(frames_THWC), device.fetch(is_finite), fps, device.mark())
