"""The invariants of an output after any fault: no clip is lost, duplicated or foreign.

Runs the farm's own audit, `nagfarm verify --decode --manifest`, and adds two checks that only the
suite can make: how often a record was written, by the versions of the bucket, and which processes
outlived the farm.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from jobs.records.keys import record_key
from jobs.store.store import Store
from jobs.types import ClipSpec
from jobs.upkeep.audit import AuditParams, audit_output
from jobs.upkeep.findings import Finding

YOUNG_S = 24 * 3600.0  # as `nagfarm verify` by default: a crash may leave an MP4 without a record


@dataclass(frozen=True)
class Audit:
    """The state of an output.

    Args:
        num_committed: planned clips that have a record.
        num_quarantined: planned clips that have no record and are quarantined with a reason.
        lost: names of planned clips that are neither.
        duplicated: clips whose record was written more than once, or removed and written again.
        mismatched: records that contradict their object, and records and quarantines of clips not
            in the plan.
        orphans: processes of the farm that outlived it.
    """

    num_planned: int
    num_committed: int
    num_quarantined: int
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    mismatched: tuple[str, ...]
    orphans: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.mismatched or self.orphans)

    @property
    def violations(self) -> tuple[str, ...]:
        """Each broken invariant as one line."""
        return (
            *(f"lost: {text}" for text in self.lost),
            *(f"duplicated: {text}" for text in self.duplicated),
            *(f"mismatched: {text}" for text in self.mismatched),
            *(f"orphan: {text}" for text in self.orphans),
        )


def audit(
    store: Store,
    planned: Sequence[ClipSpec],
    writes: Mapping[str, int],
    orphans: Iterable[str] = (),
) -> Audit:
    """Check an output against a plan.

    Args:
        planned: the clips of the manifest, each once.
        writes: number of times that each key of `records/` was ever written or deleted.
        orphans: processes that are still alive; see `Farm.orphans`.
    """
    params = AuditParams(written_before=time.time() - YOUNG_S, decodes=True)
    clips = list(audit_output(store, params, planned))
    findings: list[Finding] = [finding for clip in clips for finding in clip.findings]
    committed = [clip for clip in clips if clip.is_committed]
    return Audit(
        num_planned=len(planned),
        num_committed=sum(clip.is_planned for clip in committed),
        num_quarantined=sum(
            clip.is_planned and clip.is_quarantined and not clip.is_committed for clip in clips
        ),
        lost=tuple(finding.message for finding in findings if finding.kind == "lost"),
        duplicated=tuple(
            f"{clip.clip_id}: its record was written or deleted {num_writes} times"
            for clip in committed
            if (num_writes := writes.get(record_key(clip.clip_id), 0)) != 1
        ),
        mismatched=tuple(finding.message for finding in findings if finding.kind != "lost"),
        orphans=tuple(orphans),
    )
