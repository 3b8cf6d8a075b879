"""The documents of a run: run.json, status.json, summary.json. Loads without torch or Ray."""

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.guarded_output import DroppedOutput
from jobs.manifest.manifest import Manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.notify.messages import RunFacts
from jobs.notify.run_notices import RunNotices
from jobs.plan.plan import Plan
from jobs.records.run_file import ManifestIdentity, RunFile
from jobs.records.run_status import RunDeadline, RunState, RunStatus, RunStop, RunSummary
from jobs.run.progress.tally import RunTally
from jobs.settings.run_config import RunConfig
from jobs.store.store import Store
from jobs.timetable.dated_output import Calendar, OutputDay
from jobs.worker.provenance import installed_versions


def new_run_id() -> str:
    """Return a unique id; ids sort by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


@dataclass(frozen=True)
class OpenedManifest:
    """A checked manifest with all that a run of it needs.

    Args:
        calendar: rule by which the output is named after a day.
        day: day after which the output is named; None if it is not.
    """

    config: RunConfig
    catalog: ModelCatalog
    manifest: Manifest
    store: Store
    plan: Plan
    calendar: Calendar
    day: OutputDay | None


def notices_of(run_id: str, opened: OpenedManifest) -> RunNotices:
    """Return the notifications of a run that is to begin."""
    num_clips = opened.plan.num_pending + opened.plan.num_broken
    facts = RunFacts(run_id, opened.manifest.name, opened.store.uri, num_clips)
    return RunNotices(opened.config.notify, facts)


@dataclass(frozen=True)
class RunDocuments:
    """Makes the documents of one run from its tally.

    Args:
        run_id: the run.
        opened: the manifest and all that the run works with.
        tally: the counts of the run so far.
        dropped: the driver's own output that could not be written.
        deadline: moment at which the run must have ended; None if it has no deadline.
    """

    run_id: str
    opened: OpenedManifest
    tally: RunTally
    dropped: DroppedOutput
    deadline: RunDeadline | None

    def run(self, started_at: str, nodes: Sequence[Mapping[str, object]]) -> RunFile:
        """Return run.json: the manifest, settings, models, versions and machines of the run."""
        opened, plan = self.opened, self.opened.plan
        models = dict.fromkeys(bucket.model for bucket in plan.buckets)
        return RunFile(
            run_id=self.run_id,
            started_at=started_at,
            output=opened.store.uri,
            output_day=opened.day,
            deadline=self.deadline,
            manifest=ManifestIdentity(opened.manifest.name, opened.manifest.digest),
            num_clips=plan.num_clips,
            num_done_before=plan.num_done,
            num_pending=plan.num_pending,
            config=opened.config,
            models=tuple(opened.catalog.get(name).identity for name in models),
            versions=installed_versions(),
            nodes=tuple(nodes),
        )

    def status(
        self, state: RunState, now: float, updated_at: str, stop: RunStop | None = None
    ) -> RunStatus:
        """Return status.json.

        Args:
            now: seconds of the tally's clock.
            updated_at: the wall-clock time in ISO 8601.
            stop: the reason of a run that drains or was stopped.
        """
        tally, elapsed_s = self.tally, self.tally.elapsed_s(now)
        is_measured, left = tally.num_committed > 0, tally.left()
        return RunStatus(
            run_id=self.run_id,
            state=state,
            updated_at=updated_at,
            num_clips=self.opened.plan.num_clips,
            num_done_before=self.opened.plan.num_done,
            num_committed=tally.num_committed,
            num_quarantined=tally.num_quarantined,
            num_failures=tally.num_failures,
            num_workers=tally.num_workers,
            num_workers_lost=tally.num_workers_lost,
            busy_share=tally.device_time.busy_share,
            stop=stop,
            output_day=self.opened.day,
            deadline=self.deadline,
            cost=tally.ledger.cost(now),
            elapsed_s=elapsed_s,
            clips_per_hour=tally.num_committed / elapsed_s * 3600 if is_measured else None,
            eta_s=left and left.likely_s,
            eta_low_s=left and left.low_s,
            eta_high_s=left and left.high_s,
            waiting_for=tally.waiting_for if state == "rendering" else None,
            loading=tally.loading if state == "rendering" else (),
            kinds=tally.kinds.statuses(),
            in_flight=tally.in_flight.clips(now),
            last_failures=tuple(tally.last_failures),
            num_log_bytes_dropped=self.dropped.num_bytes,
            log_trouble=self.dropped.reason,
        )

    def summary(self, last: RunStatus) -> RunSummary:
        """Return summary.json, from the last status of the run."""
        return RunSummary.of(last, dict(self.tally.stage_totals_s), self.tally.num_left)
