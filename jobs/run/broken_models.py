"""Quarantine the clips of models that cannot be used, so that they stop no other model's clips.

A model shows that it is broken in the plan, while every worker fails to load it, or with its first
clips. The last two could also be the cluster's fault. So such clips are quarantined only if clips
of another kind could be rendered; otherwise the run stops and leaves them as they are.
"""

import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass

from jobs.errors import ModelFailedError, ModelNotLoadedError, TooManyFailuresError
from jobs.plan.plan import Plan
from jobs.plan.worker_kinds import WorkerKind, pending_clips
from jobs.records.commit import lift_quarantine, write_quarantine
from jobs.records.damage import is_committed
from jobs.records.schema import QuarantineRecord, utc_iso
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.types import ClipFailure

NUM_THREADS = 8  # below the ten connections that boto3 keeps open


@dataclass(frozen=True)
class FailedKind:
    """A kind of worker whose clips could not go on.

    Args:
        num_committed: clips of this kind that the run had committed by then.
    """

    kind: WorkerKind
    error: ModelFailedError
    num_committed: int

    @property
    def is_broken(self) -> bool:
        """Return True if the model did not load, or rendered no clip."""
        broken = (ModelNotLoadedError, TooManyFailuresError)
        return not self.num_committed and isinstance(self.error, broken)

    @property
    def reason(self) -> str:
        """Return the reason for the quarantine of its clips."""
        if isinstance(self.error, ModelNotLoadedError):
            return f"no worker could load {self.kind.model}"
        return f"every clip of {self.kind.model} that was tried failed"


def split_failed(
    failed: Sequence[FailedKind], plan: Plan, num_committed: int
) -> tuple[list[FailedKind], list[FailedKind]]:
    """Return the kinds whose clips are to be quarantined, and those whose clips stay as they are.

    A run that commits nothing shows nothing about the cluster. Then a kind counts as broken only if
    an earlier run rendered clips, all of them of kinds that have not failed now.

    Args:
        num_committed: clips that the whole run has committed.
    """
    rendered = {
        WorkerKind(bucket.model, bucket.parallel) for bucket in plan.buckets if bucket.num_done
    }
    can_judge = num_committed or (rendered and rendered.isdisjoint(one.kind for one in failed))
    quarantined = [one for one in failed if one.is_broken and can_judge]
    return quarantined, [one for one in failed if one not in quarantined]


def quarantine_kind(
    store: Store, plan: Plan, failed: FailedKind, run_id: str, ended: Container[str]
) -> Iterator[bool]:
    """Quarantine the clips that a kind of worker left; yield True for each.

    Args:
        ended: ids of the clips that the run has quarantined already, with a reason of their own.
    """
    error = failed.error
    clips = (
        ClipFailure(
            clip_id=spec.clip_id,
            name=spec.name,
            model=spec.model.name,
            request=spec.request,
            failure_class=error.failure_class,
            error_type=type(error).__name__,
            message=str(error),
        )
        for spec in pending_clips(plan, failed.kind)
        if spec.clip_id not in ended
    )
    return _quarantine(store, clips, lambda _: failed.reason, run_id)


def quarantine_broken(store: Store, plan: Plan, run_id: str) -> Iterator[bool]:
    """Quarantine the clips of models that are broken where the plan is made; yield True for each.

    First lift the quarantine of clips whose model is whole by now: the next plan has their own ids.
    """
    for stand_in in plan.mended:
        lift_quarantine(store, stand_in)
    reasons = {model.name: f"{model.name} is missing or broken" for model in plan.broken}
    return _quarantine(store, plan.broken_clips(), lambda clip: reasons[clip.model], run_id)


def _quarantine(
    store: Store, clips: Iterable[ClipFailure], reason_of: Callable[..., str], run_id: str
) -> Iterator[bool]:
    """Quarantine clips that were not tried; yield False for one that was committed meanwhile."""

    def write(clip: ClipFailure) -> bool:
        if is_committed(store, clip.clip_id):  # a worker that was stopped may have ended it
            return False
        now = utc_iso(time.time())
        write_quarantine(store, QuarantineRecord.of(clip, run_id, reason_of(clip), now))
        return True

    return in_parallel(write, clips, NUM_THREADS)
