"""The time that a clip takes, from its begin on the device to its commit, before it is rendered.

Decides which measured times count for a clip. Reads no clock. Loads without torch.
"""

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jobs.schedule.deadlines import MAX_SAMPLES
from jobs.types import ClipSpec, Stage, StageTiming
from pipelines.request import VideoShape

DEVICE_STAGES: frozenset[Stage] = frozenset({"text", "denoise", "decode"})
REST_STAGES: frozenset[Stage] = frozenset({"encode", "check", "upload"})
SHARE = 0.9  # nine of ten measured clips took no longer than the expected time


class ClipSize(NamedTuple):
    """The values on which the time of a clip depends, among those of one kind of worker."""

    shape: VideoShape
    num_inference_steps: int

    @classmethod
    def of(cls, spec: ClipSpec) -> "ClipSize":
        return cls(spec.request.shape, spec.request.sampling.num_inference_steps)


class ClipSeconds(NamedTuple):
    """The seconds of a clip on the device, and those of its encoding, checks and upload."""

    device_s: float
    rest_s: float

    @property
    def total_s(self) -> float:
        return self.device_s + self.rest_s


class Pace:
    """The expected times of the clips of one kind of worker.

    They are, in order of preference, times of clips of the same size in this run, in earlier runs,
    and times of clips of another size, scaled by the predicted ones.

    Args:
        predicted_s: predicted seconds of a clip of each size in the plan, right up to a factor.
        earlier: times of clips in earlier runs into this output.
    """

    def __init__(
        self,
        predicted_s: Mapping[ClipSize, float],
        earlier: Mapping[ClipSize, Sequence[ClipSeconds]],
    ) -> None:
        self._predicted_s = predicted_s
        self._earlier = earlier
        self._measured: defaultdict[ClipSize, deque[ClipSeconds]] = defaultdict(
            lambda: deque(maxlen=MAX_SAMPLES)
        )
        self._known: dict[ClipSize, ClipSeconds | None] = {}  # answers since the last clip

    def learn(self, spec: ClipSpec, timings: Iterable[StageTiming]) -> None:
        """Add the times of a committed clip, unless an earlier attempt had rendered it."""
        seconds = {DEVICE_STAGES: 0.0, REST_STAGES: 0.0}
        is_rendered = False
        for timing in timings:
            is_rendered |= timing.stage == "denoise"
            for stages in seconds:
                if timing.stage in stages:
                    seconds[stages] += timing.duration_s
        if is_rendered:
            found = ClipSeconds(seconds[DEVICE_STAGES], seconds[REST_STAGES])
            self._measured[ClipSize.of(spec)].append(found)
            self._known.clear()

    def of(self, size: ClipSize) -> ClipSeconds | None:
        """Return the expected time of a clip; None as long as nothing was measured."""
        if size not in self._known:
            self._known[size] = self._find(size)
        return self._known[size]

    def _find(self, size: ClipSize) -> ClipSeconds | None:
        if found := self._of_alike(size):
            return found
        predicted_s = self._predicted_s.get(size)
        others = [
            (ratio, found)
            for other, other_s in self._predicted_s.items()
            if predicted_s and other_s and (found := self._of_alike(other))
            for ratio in [predicted_s / other_s]
        ]
        if not others:
            return None
        ratio, nearest = min(others, key=lambda one: abs(math.log(one[0])))
        return ClipSeconds(nearest.device_s * ratio, nearest.rest_s * ratio)

    def _of_alike(self, size: ClipSize) -> ClipSeconds | None:
        samples = self._measured.get(size) or self._earlier.get(size)
        if not samples:
            return None
        index = math.ceil(SHARE * len(samples)) - 1
        return ClipSeconds(*(sorted(times)[index] for times in zip(*samples, strict=True)))
