"""The 8-bit frames of a decoded video."""

import pytest
import torch

from pipelines.errors import FrameCheckError
from pipelines.families.decode import fetch_frames
from pipelines.families.device import TorchDevice

CPU = TorchDevice(torch.device("cpu"))


def video_of(*values: float) -> torch.Tensor:
    """Return a video of one frame and one line, all of whose channels have these values."""
    return torch.tensor(values).expand(1, 3, 1, 1, len(values)).clone()


def test_values_are_rounded_and_clamped_and_the_decoders_output_stays_as_it_is() -> None:
    video = video_of(-1.5, -1.0, -0.999, 0.0, 0.003, 0.999, 1.0, 2.0)
    before = video.clone()
    found = fetch_frames(video, 8.0, CPU).result()
    assert found.frames[0, 0, :, 1].tolist() == [0, 0, 0, 128, 128, 255, 255, 255]
    assert (found.frames.shape, found.fps) == ((1, 1, 8, 3), 8.0)
    assert found.frames.flags["C_CONTIGUOUS"]
    assert torch.equal(video, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_video_with_values_that_are_not_finite_is_refused_when_it_is_read(
    value: float, dtype: torch.dtype
) -> None:
    frames = fetch_frames(video_of(0.0, value).to(dtype), 8.0, CPU)
    with pytest.raises(FrameCheckError, match="the decoded video holds NaN or infinite") as refused:
        frames.result()
    assert refused.value.check == "NaN"
