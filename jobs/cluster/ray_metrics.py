"""The metrics of this process, published by Ray.

Ray sends them to its agent on this node, where Prometheus fetches them. While the agent is off or
does not answer, they are lost, and nothing else is: to record a value waits for nothing.
"""

import collections
import socket
import sys
from collections.abc import Callable, Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from jobs.costs.run_cost import RunCost
from jobs.metrics.definitions import Metric
from jobs.metrics.run_metrics import RunMetrics
from jobs.plan.plan import Plan
from jobs.plan.worker_kinds import pending_kinds
from jobs.store.s3_retries import num_s3_retries

NEXT_TO_ZERO = sys.float_info.min  # Ray takes no increment of zero, with which a series begins


class RayMetrics:
    """The metrics that this process has recorded."""

    def __init__(self) -> None:
        self._published: dict[str, Counter | Gauge | Histogram] = {}

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Add to a counter, set a gauge, or add an observation to a histogram."""
        published = self._published.get(metric.name)
        if published is None:
            published = self._published[metric.name] = _publish(metric)
        match published:
            case Counter():
                published.inc(max(value, NEXT_TO_ZERO), dict(labels))
            case Gauge():
                published.set(value, dict(labels))
            case Histogram():
                published.observe(value, dict(labels))


def published_metrics(plan: Plan, cost: Callable[[float], RunCost]) -> RunMetrics:
    """Return the metrics of a run of this process that renders what is pending in a plan.

    Args:
        cost: returns the cost of the run up to a moment.
    """
    num_pending = collections.Counter[str]()
    for kind, num_clips in pending_kinds(plan).items():
        num_pending[kind.model] += num_clips
    return RunMetrics(
        RayMetrics().record,
        num_pending,
        cost,
        socket.gethostname(),
        num_s3_retries,
    )


def _publish(metric: Metric) -> Counter | Gauge | Histogram:
    if metric.kind == "histogram":
        return Histogram(metric.name, metric.help, list(metric.buckets), metric.labels)
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, metric.help, metric.labels)
