"""The Grafana board of a farm: its panels and their queries.

Decides what an operator sees first: progress, then devices, then what goes wrong, then cost. The
board takes any Prometheus data source, and one variable, the model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.metrics import definitions as metric
from jobs.metrics.definitions import Metric

TITLE, UID = "nagfarm", "nagfarm"
WIDTH, HEIGHT, COLUMNS = 8, 8, 3  # a panel's, in Grafana's grid of 24 columns
SCHEMA_VERSION = 39
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OF_MODEL = '{model=~"$model"}'


@dataclass(frozen=True)
class Panel:
    """One panel.

    Args:
        unit: Grafana's name of the unit.
        queries: a legend, and the query of its series.
    """

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""


def total(one: Metric, by: str, of: str, over: str) -> str:
    """Return the query for what a function of a range makes of a metric.

    Args:
        by: label whose series stay apart.
        of: selector of labels, or "".
        over: function and range, such as "rate 1h".
    """
    function, window = over.split()
    return f"sum by ({by}) ({function}({one.exported_name}{of}[{window}]))"


def by_model(one: Metric, over: str = "") -> str:
    """Return the query for a metric of the chosen models, by model."""
    if not over:
        return f"sum by (model) ({one.exported_name}{OF_MODEL})"
    return total(one, "model", OF_MODEL, over)


def quantile(share: float) -> str:
    buckets = f"{metric.STAGE_SECONDS.exported_name}_bucket{OF_MODEL}"
    return f"histogram_quantile({share}, sum by (stage, le) (rate({buckets}[1h])))"


WASTED = total(metric.DEVICE_WASTED, "reason", OF_MODEL, "increase $__range")
BUSY, IDLE = (by_model(one, "rate 1h") for one in (metric.DEVICE_BUSY, metric.DEVICE_IDLE))
LEFT = f"({by_model(metric.CLIPS_WAITING)} + {by_model(metric.CLIPS_IN_FLIGHT)})"
COMMITTED = by_model(metric.CLIPS_COMMITTED, "rate 1h")
HOUR = "3600"
PANELS = (
    Panel(
        "Clips committed an hour",
        "short",
        (("{{model}}", f"{by_model(metric.CLIPS_COMMITTED, 'rate $__rate_interval')} * {HOUR}"),),
    ),
    Panel(
        "Clips left",
        "short",
        (
            ("{{model}} waiting", by_model(metric.CLIPS_WAITING)),
            ("{{model}} in flight", by_model(metric.CLIPS_IN_FLIGHT)),
        ),
    ),
    Panel("Time left", "s", (("{{model}}", f"{LEFT} / {COMMITTED}"),), "At the last hour's pace."),
    Panel(
        "Workers",
        "short",
        (("{{state}}", f"sum by (state) ({metric.WORKERS.exported_name}{OF_MODEL})"),),
    ),
    Panel(
        "Busy share of devices",
        "percentunit",
        (("{{model}}", f"{BUSY} / ({BUSY} + {IDLE})"),),
        "Between the first and the last clip of each worker, in the last hour.",
    ),
    Panel(
        "Seconds of a clip in each stage",
        "s",
        (("{{stage}}, median", quantile(0.5)), ("{{stage}}, 95 %", quantile(0.95))),
    ),
    Panel(
        "Failures in the last hour",
        "short",
        (
            ("{{model}} attempts failed", by_model(metric.ATTEMPTS_FAILED, "increase 1h")),
            ("{{model}} quarantined", by_model(metric.CLIPS_QUARANTINED, "increase 1h")),
            ("workers lost", f"sum(increase({metric.WORKERS_LOST.exported_name}[1h]))"),
        ),
    ),
    Panel(
        "Failed attempts by node, in the last hour",
        "short",
        (("{{node}}", total(metric.ATTEMPTS_FAILED, "node", OF_MODEL, "increase 1h")),),
    ),
    Panel(
        "Clips that wait for the store",
        "bytes",
        (("{{node}}", f"max by (node) ({metric.SPOOL_BYTES.exported_name})"),),
    ),
    Panel(
        "Requests sent to S3 again, a second",
        "reqps",
        (("{{node}}", total(metric.S3_RETRIES, "node", "", "rate $__rate_interval")),),
    ),
    Panel(
        "Devices held",
        "short",
        (("{{model}}", by_model(metric.DEVICE_HELD, "rate $__rate_interval")),),
    ),
    Panel(
        "Device hours wasted",
        "short",
        (("{{reason}}", f"{WASTED} / {HOUR}"),),
        "In the time that is shown: device time that gave no committed clip of its own.",
    ),
    Panel(
        "Cost",
        "short",
        (("{{model}}", by_model(metric.COST, "increase $__range")),),
        "In the time that is shown, in costs.currency.",
    ),
)


def board(panels: Sequence[Panel] = PANELS) -> dict[str, Any]:
    """Return the board as Grafana imports it."""
    return {
        "title": TITLE,
        "uid": UID,
        "description": "A farm for text-to-video: progress, devices, failures, store, cost.",
        "tags": ["nagfarm", "ray"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-12h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "panels": [_panel(number, one) for number, one in enumerate(panels)],
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    yield {
        "name": "model",
        "type": "query",
        "datasource": SOURCE,
        "query": f"label_values({metric.CLIPS_WAITING.exported_name}, model)",
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "refresh": 2,  # whenever the time range changes
        "current": {"text": ["All"], "value": ["$__all"]},
    }


def _panel(number: int, one: Panel) -> dict[str, Any]:
    row, column = divmod(number, COLUMNS)
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": one.title,
        "description": one.description,
        "datasource": SOURCE,
        "gridPos": {"h": HEIGHT, "w": WIDTH, "x": column * WIDTH, "y": row * HEIGHT},
        "fieldConfig": {"defaults": {"unit": one.unit, "min": 0}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": SOURCE,
                "expr": query,
                "legendFormat": legend,
            }
            for index, (legend, query) in enumerate(one.queries)
        ],
    }
