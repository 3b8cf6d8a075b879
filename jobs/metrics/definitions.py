"""The metrics of a run: names, units, labels, help texts and buckets. Loads without torch and Ray.

Decides what is counted. No label holds a text of a manifest, an id or a path: models are names of
the catalog, nodes are host names of the cluster, so the number of series is bounded by them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

PREFIX = "nagfarm_"
NAMESPACE = "ray_"  # Ray puts it before every name
NOT_LABEL = re.compile(r"[^A-Za-z0-9._:@+-]")  # Ray takes ASCII alone
MAX_LABEL = 63  # characters, as of a Kubernetes label
UNUSABLE = "unusable"  # the label of clips whose model is missing or broken


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: its name in the code, with its unit and without "_total".
        help: its help text, one line.
        buckets: upper bounds of a histogram's buckets.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exported_name(self) -> str:
        """Return the name that Prometheus gets."""
        return f"{NAMESPACE}{self.name}{'_total' if self.kind == 'counter' else ''}"


class Record(Protocol):
    """Takes one value: a counter's increment, a gauge's value, or one observation."""

    def __call__(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None: ...


def record_nothing(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
    """Take a value, and drop it."""


def label_of(text: str) -> str:
    """Return a text as a label: short, and of characters that Ray and every console take."""
    return NOT_LABEL.sub("_", text)[:MAX_LABEL]


CLIPS_COMMITTED = Metric(
    f"{PREFIX}clips_committed",
    "counter",
    "Clips whose record is in the store.",
    ("model", "node"),
)
ATTEMPTS_FAILED = Metric(
    f"{PREFIX}attempts_failed",
    "counter",
    "Failed attempts, also at clips that a later attempt commits.",
    ("model", "node"),
)
CLIPS_QUARANTINED = Metric(
    f"{PREFIX}clips_quarantined",
    "counter",
    "Clips that will not be tried again until nagfarm retry.",
    ("model",),
)
WORKERS_LOST = Metric(
    f"{PREFIX}workers_lost",
    "counter",
    "Workers that died, stalled or could not load their model.",
)
CLIPS_WAITING = Metric(
    f"{PREFIX}clips_waiting",
    "gauge",
    "Queue depth: clips that are to be rendered and that no worker holds.",
    ("model",),
)
CLIPS_IN_FLIGHT = Metric(
    f"{PREFIX}clips_in_flight",
    "gauge",
    "Clips that workers hold.",
    ("model",),
)
WORKERS = Metric(
    f"{PREFIX}workers",
    "gauge",
    "Workers that wait for devices, load their model, or are ready for clips.",
    ("model", "state"),
)
STAGE_SECONDS = Metric(
    f"{PREFIX}stage_duration_seconds",
    "histogram",
    "Seconds of one clip in one stage; of denoise, all its steps together.",
    ("model", "stage"),
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560),
)
DEVICE_BUSY = Metric(
    f"{PREFIX}device_busy_seconds",
    "counter",
    "Seconds in which devices rendered clips that were committed.",
    ("model", "node"),
)
DEVICE_IDLE = Metric(
    f"{PREFIX}device_idle_seconds",
    "counter",
    "Seconds in which devices waited between such clips.",
    ("model", "node"),
)
DEVICE_HELD = Metric(
    f"{PREFIX}device_held_seconds",
    "counter",
    "Seconds for which workers held devices, also while they loaded their model.",
    ("model",),
)
COST = Metric(
    f"{PREFIX}cost",
    "counter",
    "Price of the device hours held, in costs.currency.",
    ("model",),
)
DEVICE_WASTED = Metric(
    f"{PREFIX}device_wasted_seconds",
    "counter",
    "Seconds of these without a committed clip of their own, by reason.",
    ("model", "reason"),
)
SPOOL_BYTES = Metric(
    f"{PREFIX}spool_bytes",
    "gauge",
    "Bytes of encoded clips on a node's disk that wait for the store.",
    ("node",),
)
S3_RETRIES = Metric(
    f"{PREFIX}s3_retries",
    "counter",
    "Requests to S3 that were sent again, by workers and by the driver.",
    ("node",),
)

METRICS = (
    CLIPS_COMMITTED, ATTEMPTS_FAILED, CLIPS_QUARANTINED, WORKERS_LOST, CLIPS_WAITING,
    CLIPS_IN_FLIGHT, WORKERS, STAGE_SECONDS, DEVICE_BUSY, DEVICE_IDLE, DEVICE_HELD,
    DEVICE_WASTED, COST, SPOOL_BYTES, S3_RETRIES,
)  # fmt: skip
