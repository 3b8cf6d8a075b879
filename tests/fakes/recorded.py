"""A record of metrics that keeps what Prometheus would show."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.metrics.definitions import Metric

Series = tuple[str, tuple[str, ...]]  # the metric's name, and its labels in the metric's order


@dataclass
class Recorded:
    """The values so far: sums of counters, latest values of gauges, observations of histograms."""

    values: dict[Series, float] = field(default_factory=dict[Series, float])
    observed: defaultdict[Series, list[float]] = field(
        default_factory=lambda: defaultdict[Series, list[float]](list)
    )

    def record(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert tuple(sorted(labels)) == tuple(sorted(metric.labels)), metric.name
        series = metric.name, tuple(labels[name] for name in metric.labels)
        if metric.kind == "counter":
            self.values[series] = self.values.get(series, 0.0) + value
        elif metric.kind == "gauge":
            self.values[series] = value
        else:
            self.observed[series].append(value)

    def value(self, metric: Metric, *labels: str) -> float | None:
        """Return the value of a series; None if it has not begun."""
        return self.values.get((metric.name, labels))
