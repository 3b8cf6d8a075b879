"""The metrics of one run, from the events of its dispatch loop.

The driver alone records them: workers report the bytes of their spool and their retries in
heartbeats. So a worker that dies takes no count with it. A counter of something rare begins at
zero, since Prometheus sees no increase in a series that begins at one. Pure: callers pass the time.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from jobs.costs.run_cost import NO_COST, WASTES, RunCost
from jobs.metrics.definitions import (
    ATTEMPTS_FAILED,
    CLIPS_COMMITTED,
    CLIPS_IN_FLIGHT,
    CLIPS_QUARANTINED,
    CLIPS_WAITING,
    COST,
    DEVICE_BUSY,
    DEVICE_HELD,
    DEVICE_IDLE,
    DEVICE_WASTED,
    S3_RETRIES,
    SPOOL_BYTES,
    STAGE_SECONDS,
    UNUSABLE,
    WORKERS,
    WORKERS_LOST,
    Metric,
    Record,
    label_of,
    record_nothing,
)
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine
from jobs.types import ClipDone, ClipFailed, StageTiming, WorkerHeartbeat

EVERY_S = 1.0  # gauges, held devices and cost are recorded once a second
HOUR_S = 3600.0
UNKNOWN = "unknown"  # the label of a node that was not seen


@dataclass(frozen=True)
class WorkerCounts:
    """The workers of one kind, as they are now.

    Args:
        num_waiting, num_loading, num_ready: workers without a place, that load, that render.
    """

    model: str
    num_waiting: int = 0
    num_loading: int = 0
    num_ready: int = 0


@dataclass(eq=False)
class _Held:
    """A clip that a worker has got."""

    model: str
    node: str
    worker: str
    is_in_flight: bool = True


@dataclass(eq=False)
class RunMetrics:
    """Records the metrics of a run as its events come.

    Args:
        record: takes each value.
        num_pending: clips to render, by model.
        cost: returns the cost of the run up to a moment of the clock of `tick`.
        driver_node: the host name of the driver.
        num_retries: returns the requests that the driver has sent to S3 again so far.
    """

    record: Record = record_nothing
    num_pending: Mapping[str, int] = field(default_factory=dict[str, int])
    cost: Callable[[float], RunCost] = lambda _now: NO_COST
    driver_node: str = UNKNOWN
    num_retries: Callable[[], int] = lambda: 0

    def __post_init__(self) -> None:
        self._left = Counter({label_of(name): num for name, num in self.num_pending.items()})
        self._nodes: dict[str, str] = {}  # by the label of a worker that is ready
        self._clips: dict[str, _Held] = {}  # by clip_id
        self._counts: Sequence[WorkerCounts] = ()
        self._spools: dict[str, int] = {}  # bytes by node
        self._retries: defaultdict[str, int] = defaultdict(int)  # seen so far, by worker
        self._begun: set[tuple[Metric, tuple[tuple[str, str], ...]]] = set()
        self._charged: dict[tuple[Metric, tuple[tuple[str, str], ...]], float] = {}
        self._ticked_s: float | None = None

    def worker_ready(self, label: str, host: str) -> None:
        self._nodes[label] = label_of(host)

    def worker_stopped(self, label: str, *, is_lost: bool) -> None:
        """Note the end of a worker; its clips are no longer in flight."""
        if is_lost:
            self._add(WORKERS_LOST, 1)
        for held in self._clips.values():
            held.is_in_flight &= held.worker != label
        node = self._nodes.pop(label, None)
        if node is not None and node not in self._nodes.values():
            self._spools.pop(node, None)
            self._set(SPOOL_BYTES, 0, node=node)  # no worker is left that measures it

    def workers_counted(self, counts: Sequence[WorkerCounts]) -> None:
        self._counts = counts

    def worker_heartbeat(self, label: str, heartbeat: WorkerHeartbeat) -> None:
        node = self._nodes.get(label)
        if node is not None:
            if heartbeat.spool_bytes is not None:
                self._spools[node] = heartbeat.spool_bytes
            self._count_retries(label, node, heartbeat.num_s3_retries)

    def clip_started(self, label: str, attempt: Attempt) -> None:
        model, node = label_of(attempt.spec.model.name), self._nodes.get(label, UNKNOWN)
        self._clips[attempt.spec.clip_id] = _Held(model, node, label)
        for metric in (CLIPS_COMMITTED, ATTEMPTS_FAILED, DEVICE_BUSY, DEVICE_IDLE):
            self._begin(metric, model=model, node=node)

    def clip_returned(self, clip_id: str) -> None:
        self._clips.pop(clip_id, None)

    def clip_done(self, done: ClipDone) -> None:
        held = self._end(done.clip_id)
        self._left[held.model] -= 1
        self._add(CLIPS_COMMITTED, 1, model=held.model, node=held.node)
        if done.device_time is not None:
            self._add(DEVICE_BUSY, done.device_time.busy_s, model=held.model, node=held.node)
            self._add(DEVICE_IDLE, done.device_time.idle_s, model=held.model, node=held.node)
        self._observe(held.model, done.timings)

    def clip_failed(self, failed: ClipFailed, decision: Decision) -> None:
        held = self._end(failed.clip_id)
        self._add(ATTEMPTS_FAILED, 1, model=held.model, node=held.node)
        self._observe(held.model, failed.timings)
        if isinstance(decision, Quarantine):
            self.clip_quarantined(held.model)

    def clip_quarantined(self, model: str | None) -> None:
        """Count a clip; without a model one that was never pending, since its model is broken."""
        name = UNUSABLE if model is None else label_of(model)
        self._left[name] -= model is not None
        self._add(CLIPS_QUARANTINED, 1, model=name)

    def tick(self, now: float) -> None:
        """Record what changes with time; `now` is in seconds of a clock that never goes back."""
        if self._ticked_s is None:
            self._begin_all()
        elif now - self._ticked_s < EVERY_S:
            return
        self.publish(now)

    def publish(self, now: float) -> None:
        """Record the gauges, held devices and cost; also at the end of a run."""
        self._charge(self.cost(now))
        self._ticked_s = now
        self._count_retries("", self.driver_node, self.num_retries())
        in_flight = Counter(held.model for held in self._clips.values() if held.is_in_flight)
        for model, num_clips in self._left.items():
            if model != UNUSABLE:
                self._set(CLIPS_IN_FLIGHT, in_flight[model], model=model)
                self._set(CLIPS_WAITING, max(0, num_clips - in_flight[model]), model=model)
        for node, num_bytes in self._spools.items():
            self._set(SPOOL_BYTES, num_bytes, node=node)
        for (model, state), num_workers in self._workers().items():
            self._set(WORKERS, num_workers, model=model, state=state)

    def _begin_all(self) -> None:
        for model in self._left:
            self._begin(CLIPS_QUARANTINED, model=model)
            self._begin(DEVICE_HELD, model=model)
            for reason in WASTES:
                self._begin(DEVICE_WASTED, model=model, reason=reason)
        self._begin(WORKERS_LOST)

    def _charge(self, cost: RunCost) -> None:
        """Raise the counters of devices and cost to what the run has used so far."""
        held_s, prices = defaultdict[str, float](float), defaultdict[str, float](float)
        wasted_s = defaultdict[tuple[str, str], float](float)
        for row in cost.models:
            model = label_of(row.model)
            held_s[model] += row.device_hours * HOUR_S
            prices[model] += row.price or 0.0
            for reason, hours in row.wasted_hours.items():
                wasted_s[model, reason] += hours * HOUR_S
        for model, value in held_s.items():
            self._raise(DEVICE_HELD, value, model=model)
        for (model, reason), value in wasted_s.items():
            self._raise(DEVICE_WASTED, value, model=model, reason=reason)
        if cost.price is not None:
            for model, value in prices.items():
                self._raise(COST, value, model=model)

    def _raise(self, metric: Metric, value: float, **labels: str) -> None:
        """Raise a counter to a value, unless it is higher already."""
        key = metric, tuple(labels.items())
        self._begin(metric, **labels)
        self._add(metric, value - self._charged.get(key, 0.0), **labels)
        self._charged[key] = max(value, self._charged.get(key, 0.0))

    def _workers(self) -> dict[tuple[str, str], int]:
        states = ("waiting", "loading", "ready")
        found = {(model, state): 0 for model in self._left for state in states}
        for counts in self._counts:
            model = label_of(counts.model)
            numbers = (counts.num_waiting, counts.num_loading, counts.num_ready)
            for state, num_workers in zip(states, numbers, strict=True):
                found[model, state] = found.get((model, state), 0) + num_workers
        return found

    def _end(self, clip_id: str) -> _Held:
        return self._clips.pop(clip_id, None) or _Held(UNKNOWN, UNKNOWN, "")

    def _observe(self, model: str, timings: Sequence[StageTiming]) -> None:
        totals_s = defaultdict[str, float](float)
        for timing in timings:
            totals_s[timing.stage] += timing.duration_s
        for stage, duration_s in totals_s.items():
            self.record(STAGE_SECONDS, duration_s, {"model": model, "stage": stage})

    def _count_retries(self, worker: str, node: str, num_retries: int) -> None:
        self._begin(S3_RETRIES, node=node)
        self._add(S3_RETRIES, num_retries - self._retries[worker], node=node)
        self._retries[worker] = max(num_retries, self._retries[worker])

    def _begin(self, metric: Metric, **labels: str) -> None:
        key = metric, tuple(labels.items())
        if key not in self._begun:
            self._begun.add(key)
            self.record(metric, 0, labels)

    def _add(self, metric: Metric, value: float, **labels: str) -> None:
        if value > 0:
            self.record(metric, value, labels)

    def _set(self, metric: Metric, value: float, **labels: str) -> None:
        self.record(metric, value, labels)
