"""When a clip that does not move has stalled: deadlines that are learnt from the clips before it.

Decides from what workers say and from what records measured; no clock is read. Loads without torch.
"""

import statistics
from collections import defaultdict, deque

from jobs.config import StallPolicy
from jobs.schedule.events import Attempt
from jobs.types import ClipProgress, Stage, StageTiming
from pipelines.request import VideoShape

COMPUTING: frozenset[Stage] = frozenset({"text", "denoise", "decode", "encode", "check"})
TALKING: frozenset[Stage] = frozenset(
    {"lookup", "upload"}
)  # to the store, whose client has time-outs; a folder has none
MEMORY = 101  # clips of one kind that a deadline is learnt from

Kind = tuple[VideoShape, str, bool]


class Deadlines:
    """How long each stage, and each denoise step, of a clip of one kind may take: a multiple of the median of the
    slowest of each clip.
    """

    def __init__(self, policy: StallPolicy) -> None:
        self._policy = policy
        self._slowest_s: defaultdict[tuple[Kind, Stage], deque[float]] = defaultdict(
            lambda: deque(maxlen=MEMORY)
        )

    def learn(self, attempt: Attempt, timings: tuple[StageTiming, ...]) -> None:
        """Takes in what a finished clip measured."""
        for stage in COMPUTING.intersection(timing.stage for timing in timings):
            slowest_s = max(timing.duration_s for timing in timings if timing.stage == stage)
            self._slowest_s[kind(attempt), stage].append(slowest_s)

    def limit_s(self, attempt: Attempt, stage: Stage, *, is_first: bool) -> float:
        """How long a stage, or a step, may take.

        Args:
            is_first: the worker has rendered no such clip yet: it may compile, and read its weights from a disk.
        """
        if stage in TALKING:
            return self._policy.store_s
        measured = self._slowest_s.get((kind(attempt), stage))
        learnt_s = self._policy.factor * statistics.median(measured) if measured else 0.0
        is_cached = stage == "text"  # most are, which tells nothing of one that is not
        least_s = (
            self._policy.first_s if is_first or is_cached or not measured else self._policy.min_s
        )
        return max(least_s, learnt_s)

    def stall(self, attempt: Attempt, progress: ClipProgress, *, is_first: bool) -> str | None:
        """What to say of a clip that has stood still for too long; None of one that has not."""
        if progress.stage not in COMPUTING | TALKING:
            return None
        limit_s = self.limit_s(attempt, progress.stage, is_first=is_first)
        if progress.age_s <= limit_s:
            return None
        where = (
            progress.stage
            if progress.step is None
            else f"{progress.stage} after step {progress.step}"
        )
        return (
            f"no progress in {where} for {progress.age_s:.0f} s, where {limit_s:.0f} s are allowed"
        )


def kind(attempt: Attempt) -> Kind:
    """Clips of one kind take equally long."""
    request = attempt.spec.request
    return request.shape, request.method, attempt.uses_exact_attention
