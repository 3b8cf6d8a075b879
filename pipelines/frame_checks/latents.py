"""The check of a clip's latents, which refuses NaN and exploded ones. Loads without torch."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pipelines.errors import FrameCheckError
from pipelines.frame_checks.limits import FrameLimits
from pipelines.video_model import DeviceMonitor

if TYPE_CHECKING:
    import torch

DEFAULT_LIMITS = FrameLimits()


@dataclass(frozen=True, eq=False)
class FetchedLatents:
    """The latents of a clip on their way to the host, whole once the device has finished the clip.

    Args:
        mean_square: mean square of the latents, which the device computes.
    """

    latents: "torch.Tensor"
    mean_square: "torch.Tensor"

    @classmethod
    def of(cls, latents: "torch.Tensor", device: DeviceMonitor) -> Self:
        """Queue the copies to the host."""
        return cls(device.fetch(latents), device.fetch(mean_square_of(latents)))

    def check(self, limits: FrameLimits) -> None:
        """Refuse latents that are not finite or have exploded. See `check_latents`."""
        check_latents(self.latents, limits, float(self.mean_square))

    def save(self) -> bytes:
        """Return the latents as a safetensors file."""
        return save_latents(self.latents)


def mean_square_of(latents: "torch.Tensor") -> "torch.Tensor":
    """Return the mean square of latents, on their device, without waiting for it."""
    return latents.double().square().mean()


def check_latents(
    latents: "torch.Tensor",
    limits: FrameLimits = DEFAULT_LIMITS,
    mean_square: float | None = None,
) -> None:
    """Refuse latents that are not finite or have exploded.

    One value that is not finite makes the root mean square so. Exploded latents are found here
    because autoencoders decode them to smooth blots, which the statistics of frames cannot tell
    from a picture.

    Args:
        mean_square: mean square of the latents, if it was computed before.

    Raises:
        FrameCheckError: values are NaN or infinite, or too large on the whole.
    """
    spread = math.sqrt(mean_square_of(latents) if mean_square is None else mean_square)
    if not math.isfinite(spread) and (num_bad := int((~latents.isfinite()).sum())):
        raise FrameCheckError.of(
            f"{num_bad:,} of {latents.numel():,} latent values are NaN or infinite", "NaN"
        )
    if limits.spread is not None and spread > limits.spread:
        raise FrameCheckError.of(
            f"the latents have exploded: their root mean square is {spread:.4g}, above the limit "
            f"of {limits.spread:g} (frame_checks.spread)",
            "spread",
            ("spread",),
        )


def save_latents(latents: "torch.Tensor") -> bytes:
    """Return the latents as a safetensors file.

    `safetensors.torch.load(content)["latents"]` reads it.
    """
    from safetensors.torch import save

    return save({"latents": latents.detach().cpu().contiguous()})
