"""The way of the work: clips of each node between two moments, and clips that changed the node.

Decides by the records and failures of the output alone. The clock of all machines is the same here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from rich.table import Table

from jobs.records.schema import ClipRecord, FailureRecord


@dataclass(frozen=True)
class Moment:
    """A moment of the demo, from which a row of the table counts.

    Args:
        at_s: seconds since the epoch.
        title: the event, such as "node-a is cut off".
    """

    at_s: float
    title: str


@dataclass(frozen=True)
class Move:
    """A clip that one node failed to finish and another one, or the same, committed."""

    clip: str
    source: str
    failure_class: str
    target: str
    attempt: int


def find_moves(records: Mapping[str, ClipRecord], failures: Iterable[FailureRecord]) -> list[Move]:
    """Return the failed attempts at clips that were committed later."""
    return [
        Move(
            record.name,
            node_of(failure),
            failure.failure_class,
            record.worker.host,
            failure.attempt,
        )
        for failure in failures
        if (record := records.get(failure.clip_id)) is not None
    ]


def node_of(failure: FailureRecord) -> str:
    """Return the host of a worker's label, `host:pid`."""
    return failure.worker.partition(":")[0]


def counts(
    moments: Sequence[Moment], records: Iterable[ClipRecord], nodes: Sequence[str]
) -> list[list[int]]:
    """Return the clips that each node committed from each moment to the next one."""
    ends_s = [*(moment.at_s for moment in moments[1:]), float("inf")]
    starts_s = [float("-inf"), *ends_s]
    commits = [(seconds(record.committed_at), record.worker.host) for record in records]
    return [
        [sum(start <= at < end and host == node for at, host in commits) for node in nodes]
        for start, end in pairwise(starts_s)
    ]


def seconds(time: str) -> float:
    """Return a record's time in seconds since the epoch."""
    return datetime.fromisoformat(time).timestamp()


def work_table(
    moments: Sequence[Moment], records: Iterable[ClipRecord], nodes: Sequence[str], end_s: float
) -> Table:
    """Draw the clips of each node between two moments.

    Args:
        moments: the rows, in order of time.
        records: the committed clips.
        nodes: the columns.
        end_s: end of the last row.
    """
    table = Table(title="clips committed, by node", title_justify="left")
    table.add_column("from the moment at which")
    for name in ("seconds", *nodes):
        table.add_column(name, justify="right")
    ends_s = [*(moment.at_s for moment in moments[1:]), end_s]
    rows = counts(moments, records, nodes)
    for moment, end, row in zip(moments, ends_s, rows, strict=True):
        table.add_row(moment.title, f"{end - moment.at_s:.0f}", *map(str, row))
    table.add_section()
    whole_s = end_s - moments[0].at_s
    totals = [sum(column) for column in zip(*rows, strict=True)]
    table.add_row("all of it", f"{whole_s:.0f}", *map(str, totals))
    return table


def moves_table(moves: Sequence[Move]) -> Table:
    """Draw the clips that one node lost and a node committed later."""
    table = Table(title="clips that were tried again", title_justify="left")
    for name in ("clip", "lost by", "as a fault of class", "committed by"):
        table.add_column(name)
    table.add_column("at attempt", justify="right")
    for move in moves:
        row = (move.clip, move.source, move.failure_class, move.target)
        table.add_row(*row, str(move.attempt + 1))
    return table
