"""The frame checks: they refuse black, flat, frozen and noisy frames.

They decide by plain statistics, and their limits belong to the model (`limits`). They look for
broken renders, not for ugly ones: docs/explanation/frame-checks.md has the statistics of good clips
and of bad ones. Loads without torch.

Shapes of arrays: T frames, H and W pixels, C = 3 channels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipelines.errors import FrameCheckError
from pipelines.frame_checks.limits import FrameLimits, asks_for
from pipelines.request import VideoFrames

# The most pixels measured in a frame. In larger frames every n-th row is measured, since only whole
# rows keep neighbours.
MAX_PIXELS = 2**16
# The share of a frame's pixels that may be brighter than its brightness, so that a few sparks do
# not count.
BRIGHT_SHARE = 0.001
# Cells on a side of the coarse frame, which a moving camera hardly changes between two frames.
NUM_CELLS = 8


@dataclass(frozen=True)
class FrameStatistics:
    """The statistics of a clip's frames. Levels are 0 to 255.

    Args:
        brightness: level that 99.9 % of a frame's pixels do not exceed in their brightest channel,
            in the brightest frame.
        contrast: standard deviation over a frame's pixels, in levels, in the channel and the frame
            in which it is largest.
        motion: mean difference from the first frame, in levels, in the frame that differs most;
            None for one frame.
        grain: squared difference of neighbouring pixels over that of unrelated pixels, in the
            median frame: below 0.2 in pictures, 1 in white noise.
        flicker: the same for neighbouring frames on a coarse grid, in the median pair; None for
            one frame.
        saturation: share of pixels with one channel at 0 and another at 255, in the median frame.
    """

    brightness: float
    contrast: float
    motion: float | None
    grain: float
    flicker: float | None
    saturation: float


def check_frames(video: VideoFrames, prompt: str, limits: FrameLimits) -> None:
    """Refuse black, flat, frozen or noisy frames, unless the prompt asks for them.

    A black clip is also flat, and a flat clip is also frozen. So only the first fault of black,
    flat, frozen and noise counts: if the prompt asks for it, the clip passes.

    Raises:
        FrameCheckError: a statistic is beyond its limit; the message has both.
    """
    faults = list(find_faults(measure_frames(video.frames), limits))
    if faults and not asks_for(prompt, faults[0].words):
        beyond = tuple(fault.check for fault in faults)
        raise FrameCheckError.of(faults[0].message, faults[0].check, beyond)


@dataclass(frozen=True)
class Fault:
    """The check that frames fail, the reason, and the words of a prompt that allow it."""

    check: str
    message: str
    words: tuple[str, ...]


def find_faults(found: FrameStatistics, limits: FrameLimits) -> Iterator[Fault]:
    """Yield every check that fails, the first fault first, without regard to the prompt."""
    low = (
        ("black", "reaches level", found.brightness, limits.black, limits.black_words),
        ("flat", "deviates from its mean by", found.contrast, limits.flat, limits.flat_words),
        (
            "frozen",
            "differs from its first frame by",
            found.motion,
            limits.frozen,
            limits.frozen_words,
        ),
    )
    for check, finding, value, limit, words in low:
        if value is not None and limit is not None and value < limit:
            yield Fault(
                check,
                f"the clip is {check}: it {finding} {value:.4g} of 255 at most, below the limit of "
                f"{limit:g} (frame_checks.{check})",
                words,
            )
    high = (
        (
            "grain",
            "the squared difference of neighbouring pixels is {:.3g} times that of unrelated ones",
            found.grain,
            limits.grain,
        ),
        (
            "flicker",
            "the squared difference of neighbouring frames is {:.3g} times that of unrelated ones",
            found.flicker,
            limits.flicker,
        ),
        (
            "saturation",
            "pixels in a fully saturated colour have a share of {:.3g}",
            found.saturation,
            limits.saturation,
        ),
    )
    for check, finding, value, limit in high:
        if value is not None and limit is not None and value > limit:
            yield Fault(
                check,
                f"the clip is noise: {finding.format(value)}, above the limit of {limit:g} "
                f"(frame_checks.{check})",
                limits.noise_words,
            )


def measure_frames(frames_THWC: np.ndarray) -> FrameStatistics:
    """Measure every frame, at most `MAX_PIXELS` pixels of each."""
    stride = math.ceil(frames_THWC[0, ..., 0].size / MAX_PIXELS)
    first_HWC = frames_THWC[0, ::stride].astype(np.float32)
    looks = [
        _look(np.ascontiguousarray(frame_HWC[::stride]), first_HWC) for frame_HWC in frames_THWC
    ]
    has_pairs = len(looks) > 1
    return FrameStatistics(
        brightness=max(look.brightness for look in looks),
        contrast=max(look.contrast for look in looks),
        motion=max(look.difference for look in looks) if has_pairs else None,
        grain=float(np.median([look.grain for look in looks])),
        flicker=float(np.median([_flicker(*pair) for pair in pairwise(looks)]))
        if has_pairs
        else None,
        saturation=float(np.median([look.saturation for look in looks])),
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """The measurements of one frame."""

    brightness: int
    contrast: float
    difference: float  # from the first frame
    grain: float
    saturation: float
    coarse: np.ndarray


def _look(frame_HWC: np.ndarray, first_HWC: np.ndarray) -> _Look:
    pixels_HWC = frame_HWC.astype(np.float32)
    variance_C = pixels_HWC.var(axis=(0, 1))
    red, green, blue = (frame_HWC[..., channel] for channel in range(3))
    # Pairwise maxima are 20 times as fast as a maximum over an axis of 3.
    most_HW = np.maximum(np.maximum(red, green), blue)
    least_HW = np.minimum(np.minimum(red, green), blue)
    counts = np.bincount(most_HW.ravel(), minlength=256).cumsum()
    return _Look(
        brightness=int(np.searchsorted(counts, (1 - BRIGHT_SHARE) * counts[-1])),
        contrast=float(variance_C.max()) ** 0.5,
        difference=float(np.abs(pixels_HWC - first_HWC).mean()),
        grain=_roughness(pixels_HWC[:, 1:] - pixels_HWC[:, :-1], float(variance_C.mean())),
        saturation=float(((most_HW == 255) & (least_HW == 0)).mean()),
        coarse=_coarse(pixels_HWC),
    )


def _flicker(before: _Look, after: _Look) -> float:
    variance = (before.coarse.var(axis=(0, 1)).mean() + after.coarse.var(axis=(0, 1)).mean()) / 2
    return _roughness(after.coarse - before.coarse, float(variance))


def _roughness(differences: np.ndarray, variance: float) -> float:
    """Return the mean square of neighbours' differences over twice the variance.

    Unrelated neighbours have 1.

    Source: J. von Neumann, Distribution of the ratio of the mean square successive difference to
    the variance, 1941.
    """
    return (
        float(np.square(differences).mean()) / (2 * variance)
        if variance > 0 and differences.size
        else 0.0
    )


def _coarse(pixels_HWC: np.ndarray) -> np.ndarray:
    """Return the means over a grid of `NUM_CELLS` cells a side, or fewer in a smaller frame."""
    for axis in (0, 1):
        size = pixels_HWC.shape[axis]
        starts = np.unique(np.arange(NUM_CELLS) * size // NUM_CELLS)
        sizes = np.diff(np.append(starts, size))
        pixels_HWC = np.add.reduceat(pixels_HWC, starts, axis=axis) / np.expand_dims(
            sizes, (1 - axis, 2)
        )
    return pixels_HWC
