"""When a clip that does not move has stalled: deadlines that are learnt from the clips before it.

Decides from what workers say and from what records measured; no clock is read. Loads without torch.
"""

from jobs.config import StallPolicy
from jobs.types import ClipProgress, ClipSpec, Stage, StageTiming
from pipelines.types import VideoShape

# those in which the worker itself computes; the store's stages are bounded by its client's timeouts
COMPUTING: frozenset[Stage] = frozenset({"text", "denoise", "decode", "encode", "check"})


class Deadlines:
    """How long each stage, and each denoise step, of a clip of one size may take."""

    def __init__(self, policy: StallPolicy) -> None:
        self._policy = policy
        self._slowest_s: dict[tuple[VideoShape, Stage], float] = {}

    def learn(self, spec: ClipSpec, timings: tuple[StageTiming, ...]) -> None:
        """Takes in what a finished clip measured."""
        for timing in timings:
            key = spec.request.shape, timing.stage
            self._slowest_s[key] = max(self._slowest_s.get(key, 0.0), timing.duration_s)

    def limit_s(self, spec: ClipSpec, stage: Stage) -> float:
        slowest_s = self._slowest_s.get((spec.request.shape, stage))
        return self._policy.first_s if slowest_s is None else max(self._policy.min_s, self._policy.factor * slowest_s)

    def stall(self, spec: ClipSpec, progress: ClipProgress) -> str | None:
        """What to say of a clip that has stood still for too long; None of one that has not."""
        limit_s = self.limit_s(spec, progress.stage)
        if progress.stage not in COMPUTING or progress.age_s <= limit_s:
            return None
        where = progress.stage if progress.step is None else f"{progress.stage} after step {progress.step}"
        return f"no progress in {where} for {progress.age_s:.0f} s, where {limit_s:.0f} s are allowed"
