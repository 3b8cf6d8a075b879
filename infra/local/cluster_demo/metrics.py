"""The metrics of each node, from the endpoint that Ray opens there for Prometheus."""

import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families
from rich.table import Table

ASK_S = 5.0
SMALLEST = 1e-300  # a counter that counted nothing may be offered as such a number
OWN = ("nagfarm_", "ray_nagfarm_")  # Ray puts its own prefix before every name
SHOWN = (
    "ray_node_cpu_utilization",
    "ray_node_mem_used",
    "ray_node_network_sent",
    "ray_node_network_received",
)
LEFT_OUT = ("_bucket", "_created")  # series of a histogram that a table cannot show


@dataclass(frozen=True)
class NodeMetrics:
    """One answer of a node.

    Args:
        values: sum over all labels of each series.
        num_series: number of series, labels counted.
    """

    values: Mapping[str, float]
    num_series: int


def ask(url: str) -> NodeMetrics | None:
    """Return the metrics at an endpoint, or None if it does not answer."""
    try:
        with urllib.request.urlopen(url, timeout=ASK_S) as answer:  # noqa: S310 the URL is ours
            return read_metrics(answer.read().decode())
    except OSError:
        return None


def read_metrics(text: str) -> NodeMetrics:
    """Read Prometheus' text format."""
    values: defaultdict[str, float] = defaultdict(float)
    num_series = 0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values[sample.name] += sample.value
            num_series += 1
    return NodeMetrics(dict(values), num_series)


def metrics_table(answers: Mapping[str, NodeMetrics | None]) -> Table:
    """Draw the farm's own metrics and a few of Ray's, a column for each node.

    Args:
        answers: by name of the node; None for one that does not answer.
    """
    table = Table(title="metrics, as Prometheus gets them from each node", title_justify="left")
    table.add_column("sum over all labels")
    for name in answers:
        table.add_column(name, justify="right")
    for series in shown_series(answers.values()):
        table.add_row(series, *(_cell(answer, series) for answer in answers.values()))
    table.add_section()
    totals = ("-" if each is None else f"{each.num_series:,}" for each in answers.values())
    table.add_row("series, all together", *totals)
    return table


def shown_series(answers: Iterable[NodeMetrics | None]) -> list[str]:
    """Return the names of the series to show, sorted."""
    names = {name for answer in answers if answer is not None for name in answer.values}
    return sorted(
        name
        for name in names
        if name in SHOWN or (name.startswith(OWN) and not name.endswith(LEFT_OUT))
    )


def _cell(answer: NodeMetrics | None, series: str) -> str:
    if answer is None:
        return "no answer"
    value = answer.values.get(series)
    if value is not None and abs(value) < SMALLEST:
        return "0"
    return "" if value is None else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
