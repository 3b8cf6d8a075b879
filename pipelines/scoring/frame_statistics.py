"""Motion and flicker of a clip, by arithmetic on its frames. Loads without torch.

Shape suffixes: T frames, H and W pixels, C = 3 channels.
"""

from itertools import pairwise

import numpy as np

from pipelines.frame_checks.checks import measure_frames
from pipelines.scoring.scored_clip import ScoredClip, Scores


class FrameStatisticsMeasure:
    """The statistics of the frame checks that say how a clip moves, and the step between frames."""

    def score(self, clip: ScoredClip) -> Scores:
        """Return the figures; a clip of one frame has none."""
        found = measure_frames(clip.frames)
        if found.motion is None or found.flicker is None:
            return Scores({})
        return Scores(
            {
                "motion": found.motion,
                "step_change": step_change(clip.frames),
                "flicker": found.flicker,
            }
        )


def step_change(frames_THWC: np.ndarray) -> float:
    """Return the mean absolute difference of neighbouring frames, in levels of 0 to 255.

    VBench's temporal flickering is `(255 - step_change) / 255`, where it takes still scenes.
    """
    steps = [
        float(np.abs(after.astype(np.int16) - before.astype(np.int16)).mean())
        for before, after in pairwise(frames_THWC)
    ]
    return sum(steps) / len(steps)
