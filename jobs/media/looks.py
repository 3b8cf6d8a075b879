"""The frames of an MP4 that measures look at: a few in their own pixels, and all made small.

One pass over the file gives both, and memory holds these frames and one more.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.media.decode_check import opened_frames
from jobs.media.frames import narrowed

if TYPE_CHECKING:
    import numpy as np

MAX_SMALL_FRAMES = 1000  # 40 s at 24 a second; 280 MB in 16:9
SMALL_WIDTH_PX = 416


@dataclass(frozen=True, eq=False)
class Look:
    """Frames of a clip, each array (number, H, W, 3) uint8.

    Args:
        stills: evenly spaced frames in their own pixels: the middles of as many equal parts, so
            that a first frame which fades in does not count.
        small: the first `MAX_SMALL_FRAMES` frames, at most `SMALL_WIDTH_PX` wide.
    """

    stills: "np.ndarray"
    small: "np.ndarray"


def look_at(path: Path, num_stills: int, *, has_small: bool) -> Look:
    """Look at an MP4.

    Args:
        num_stills: stills that are wanted; a shorter clip gives each of its frames.
        has_small: True to return all frames made small.

    Raises:
        CheckError: the file is missing, empty, cut off or not a video.
    """
    import numpy as np

    stills: list[np.ndarray] = []
    small: list[np.ndarray] = []
    with opened_frames(path) as (total, frames):
        wanted = still_positions(total, num_stills)
        for at, frame in enumerate(frames):
            if at in wanted:
                stills.append(frame)
            if has_small and at < MAX_SMALL_FRAMES:
                small.append(narrowed(frame, SMALL_WIDTH_PX))
    nothing = np.zeros((0, 1, 1, 3), np.uint8)
    return Look(np.stack(stills) if stills else nothing, np.stack(small) if small else nothing)


def still_positions(total: int, num_stills: int) -> set[int]:
    """Return the positions of the stills among `total` frames."""
    num = min(total, num_stills)
    return {(2 * at + 1) * total // (2 * num) for at in range(num)}
