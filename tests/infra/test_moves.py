"""The table of the cluster demo: clips by node and moment, and clips that were tried again."""

from dataclasses import replace

from rich.console import Console

from infra.local.cluster_demo.metrics import metrics_table, read_metrics, shown_series
from infra.local.cluster_demo.moves import Moment, Move, counts, find_moves, seconds, work_table
from jobs.records.schema import ClipRecord, utc_iso
from jobs.settings.run_config import StoreConfig
from jobs.store.store import open_store
from tests.builders.records import AT_S, failure_of, record_of

NODES = ("node-a", "node-b")
TEXT = """\
# HELP ray_nagfarm_clips_committed_total clips
# TYPE ray_nagfarm_clips_committed_total counter
ray_nagfarm_clips_committed_total{node="a",model="x"} 3
ray_nagfarm_clips_committed_total{node="a",model="y"} 4
# TYPE ray_nagfarm_stage_seconds histogram
ray_nagfarm_stage_seconds_bucket{le="1"} 2
ray_nagfarm_stage_seconds_bucket{le="+Inf"} 2
ray_nagfarm_stage_seconds_count 2
ray_nagfarm_stage_seconds_sum 1.5
# TYPE ray_other gauge
ray_other 1
"""


def committed(number: int, node: str, at_s: float) -> ClipRecord:
    store = open_store("file:///nowhere", StoreConfig())
    record = record_of(store, b"video", f"{number:032x}")
    worker = replace(record.worker, host=node)
    return replace(record, worker=worker, committed_at=utc_iso(at_s))


def test_a_clip_counts_from_the_last_moment_before_its_commit() -> None:
    moments = [Moment(AT_S + 10, "begins"), Moment(AT_S + 20, "node-a is cut off")]
    records = [
        committed(1, "node-a", AT_S + 11),
        committed(2, "node-b", AT_S + 19.5),
        committed(3, "node-b", AT_S + 20),
        committed(4, "node-b", AT_S + 500),
    ]
    assert counts(moments, records, NODES) == [[1, 1], [0, 2]]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(work_table(moments, records, NODES, AT_S + 50))
    rows = [line.strip("│┃ ").split() for line in capture.get().splitlines()]
    assert ["node-a", "is", "cut", "off", "│", "30", "│", "0", "│", "2"] in rows
    assert ["all", "of", "it", "│", "40", "│", "1", "│", "3"] in rows


def test_a_time_of_a_record_is_read_as_utc() -> None:
    assert seconds(utc_iso(AT_S)) == AT_S


def test_a_clip_that_failed_on_one_node_and_was_committed_by_another_has_moved() -> None:
    record = committed(1, "node-b", AT_S)
    failure = replace(failure_of(record.clip_id), worker="node-a:77")
    uncommitted = failure_of("f" * 32)
    moves = find_moves({record.clip_id: record}, [failure, uncommitted])
    assert moves == [Move(record.name, "node-a", "memory", "node-b", 1)]


def test_metrics_are_summed_over_labels_and_buckets_are_left_out() -> None:
    metrics = read_metrics(TEXT)
    assert metrics.values["ray_nagfarm_clips_committed_total"] == 7
    assert metrics.num_series == 7
    assert shown_series([metrics, None]) == [
        "ray_nagfarm_clips_committed_total",
        "ray_nagfarm_stage_seconds_count",
        "ray_nagfarm_stage_seconds_sum",
    ]
    console = Console(width=100)
    with console.capture() as capture:
        console.print(metrics_table({"node-a": metrics, "node-b": None}))
    assert "no answer" in capture.get()
