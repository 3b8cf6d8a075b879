"""The deadlines of a clip's stages and steps, learnt from the clips before it.

Compares the progress in heartbeats with measured durations; reads no clock. Loads without torch.
"""

import statistics
from collections import defaultdict, deque

from jobs.schedule.events import Attempt
from jobs.settings.run_config import StallPolicy
from jobs.types import ClipProgress, Stage, StageTiming
from pipelines.lora_choice import LoraChoice
from pipelines.request import VideoShape

COMPUTE_STAGES: frozenset[Stage] = frozenset({"text", "denoise", "decode", "encode", "check"})
# The S3 client has time-outs of its own, a folder has none.
STORE_STAGES: frozenset[Stage] = frozenset({"lookup", "upload"})
MAX_SAMPLES = 101  # clips with one timing key from which a deadline is learnt

# Clips with the same shape, guidance method and attention (exact or not) take equally long.
TimingKey = tuple[VideoShape, str, bool]
# A worker may compile for another choice of LoRAs, or read weights for it, once.
PreparationKey = tuple[TimingKey, tuple[LoraChoice, ...] | None]


def timing_key(attempt: Attempt) -> TimingKey:
    request = attempt.spec.request
    return request.shape, request.method, attempt.uses_exact_attention


def preparation_key(attempt: Attempt) -> PreparationKey:
    return timing_key(attempt), attempt.spec.request.loras


class Deadlines:
    """The longest allowed duration of each stage and of each denoise step.

    A deadline is a multiple of the median, over clips, of the slowest step of each clip.
    """

    def __init__(self, policy: StallPolicy) -> None:
        self._policy = policy
        self.least_s = min(policy.min_s, policy.store_s)  # no stage and no step has less time
        self._slowest_s: defaultdict[tuple[TimingKey, Stage], deque[float]] = defaultdict(
            lambda: deque(maxlen=MAX_SAMPLES)
        )

    def learn(self, attempt: Attempt, timings: tuple[StageTiming, ...]) -> None:
        """Add the durations measured in a finished clip."""
        slowest_s: dict[Stage, float] = {}
        for timing in timings:
            slowest_s[timing.stage] = max(timing.duration_s, slowest_s.get(timing.stage, 0.0))
        key = timing_key(attempt)
        for stage in slowest_s.keys() & COMPUTE_STAGES:
            self._slowest_s[key, stage].append(slowest_s[stage])

    def limit_s(self, attempt: Attempt, stage: Stage, *, is_first: bool) -> float:
        """Return the longest allowed duration of a stage, or of one of its steps, in seconds.

        Args:
            is_first: True if the worker has not yet rendered a clip with this preparation key, so
                that it may compile and read weights from disk.
        """
        if stage in STORE_STAGES:
            return self._policy.store_s
        measured = self._slowest_s.get((timing_key(attempt), stage))
        learnt_s = self._policy.factor * statistics.median(measured) if measured else 0.0
        is_cached = stage == "text"  # most embeddings are cached; their times do not predict others
        least_s = (
            self._policy.first_s if is_first or is_cached or not measured else self._policy.min_s
        )
        return max(least_s, learnt_s)

    def stall_message(
        self, attempt: Attempt, progress: ClipProgress, *, is_first: bool
    ) -> str | None:
        """Return the failure message of a stalled clip; None if the clip is within its deadline."""
        if progress.stage not in COMPUTE_STAGES | STORE_STAGES:
            return None
        limit_s = self.limit_s(attempt, progress.stage, is_first=is_first)
        if progress.age_s <= limit_s:
            return None
        is_store = progress.stage in STORE_STAGES
        where = progress.stage + ("" if progress.step is None else f" after step {progress.step}")
        settings = "stall.store_s" if is_store else "stall.first_s, stall.min_s or stall.factor"
        return (
            f"stalled in {where}: no progress for {progress.age_s:.0f} s, the deadline is "
            f"{limit_s:.0f} s; if it is only slow, raise {settings}"
        )
