"""The counts of a run: clips, failures, workers, seconds per stage. Pure: callers pass the time."""

from collections import defaultdict, deque
from collections.abc import Iterable

from jobs.costs.device_ledger import DeviceLedger
from jobs.digests import IdSet
from jobs.records.run_status import FailureSeen, LoadingWorkers
from jobs.run.progress.in_flight import InFlight
from jobs.run.progress.kind_tally import PlannedKind
from jobs.run.progress.kinds import RunKinds
from jobs.run.progress.time_left import TimeLeft
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine
from jobs.settings.cost_config import CostConfig
from jobs.types import ClipDone, ClipFailed, StageTiming, WorkerHeartbeat
from pipelines.device_marks import DeviceTime

NUM_LAST_FAILURES = 10


class RunTally:
    """The counts of one run so far. Times are seconds of a clock that never goes back.

    Args:
        num_clips: the number of clips to render.
        started: the time at which the run began.
        kinds: the kinds of these clips, in the order of the run.
        prices: prices of devices.
    """

    def __init__(
        self,
        num_clips: int,
        started: float,
        kinds: Iterable[PlannedKind] = (),
        prices: CostConfig | None = None,
    ) -> None:
        self.num_clips = num_clips
        self.num_committed = 0
        self.num_quarantined = 0
        self.num_failures = 0
        self.num_workers = 0
        self.num_workers_lost = 0
        self.stage_totals_s: defaultdict[str, float] = defaultdict(float)
        self.device_time = DeviceTime(0.0, 0.0)  # all workers together
        self.ledger = DeviceLedger(prices)
        self.in_flight = InFlight()
        self.waiting_for: str | None = None  # devices, and who has them
        self.loading: tuple[LoadingWorkers, ...] = ()
        self.quarantined: set[str] = set()  # clip ids
        self.committed = IdSet()
        self.last_failures: deque[FailureSeen] = deque(maxlen=NUM_LAST_FAILURES)
        self.kinds = RunKinds(kinds, started)
        self._started = started

    @property
    def num_ended(self) -> int:
        return self.num_committed + self.num_quarantined

    @property
    def num_left(self) -> int:
        return self.num_clips - self.num_ended

    def elapsed_s(self, now: float) -> float:
        return now - self._started

    def left(self) -> TimeLeft | None:
        """Estimate the rest of the run, with a range; None without a pace.

        A run without a worker has none, since it may never get one again.
        """
        if not self.num_left:
            return TimeLeft(0.0, 0.0, 0.0)
        return self.kinds.time_left() if self.num_workers else None

    def left_s(self) -> float | None:
        """Estimate the rest of the run, in seconds; None without a pace."""
        left = self.left()
        return None if left is None else left.likely_s

    def tick(self, now: float) -> None:
        """Note the progress of the clips in flight from time to time."""
        if self.kinds.is_due(now):
            self.kinds.sample(self.in_flight.shares(), now)

    def worker_ready(self) -> None:
        self.num_workers += 1

    def worker_stopped(self, label: str, *, is_ready: bool, is_lost: bool) -> None:
        self.num_workers -= is_ready
        self.num_workers_lost += is_lost
        self.in_flight.end_worker(label)

    def worker_heartbeat(self, heartbeat: WorkerHeartbeat) -> None:
        self.in_flight.update(heartbeat)

    def clip_started(self, label: str, attempt: Attempt, now: float) -> None:
        self.in_flight.start(label, attempt, now)
        self.ledger.clip_started(label, attempt.spec.clip_id, now)
        self.kinds.clip_started(attempt.spec)

    def clip_returned(self, clip_id: str) -> None:
        self.in_flight.end(clip_id)
        self.ledger.clip_returned(clip_id)

    def clip_done(self, done: ClipDone, now: float) -> None:
        self.num_committed += 1
        self.committed.add(done.clip_id)
        self.ledger.clip_done(done, now)
        if done.device_time is not None:
            self.device_time += done.device_time
        self._end_attempt(done.clip_id, done.timings)
        self.kinds.clip_committed(done.clip_id, done.device_time)
        self.tick(now)

    def clip_failed(
        self, failed: ClipFailed, decision: Decision, now: float, failed_at: str
    ) -> None:
        """Count a failed attempt, and the clip if it is quarantined.

        Args:
            failed_at: the wall-clock time in ISO 8601, for the status.
        """
        self.num_failures += 1
        self.ledger.clip_failed(failed, now)
        self._end_attempt(failed.clip_id, failed.timings)
        self.last_failures.append(FailureSeen.of(failed, failed_at))
        if isinstance(decision, Quarantine):
            self.quarantined.add(failed.clip_id)
            self.num_quarantined += 1
            self.kinds.clip_quarantined(failed.clip_id)
            self.tick(now)

    def _end_attempt(self, clip_id: str, timings: tuple[StageTiming, ...]) -> None:
        self.in_flight.end(clip_id)
        for timing in timings:
            self.stage_totals_s[timing.stage] += timing.duration_s
