"""The heartbeat of a worker while it computes."""

import psutil

from jobs.types import ClipProgress
from jobs.worker.heartbeat import Heartbeat, memory_bytes


def test_a_heartbeat_has_the_last_stage_of_each_clip_and_its_age() -> None:
    now = [100.0]
    heartbeat = Heartbeat(lambda: now[0])
    heartbeat.move("a", "denoise", 0)
    now[0] = 103.0
    heartbeat.move("b", "queue")
    heartbeat.move("a", "denoise", 1)
    now[0] = 110.0
    assert heartbeat.read().clips == (
        ClipProgress("a", "denoise", 1, 7.0),
        ClipProgress("b", "queue", None, 7.0),
    )


def test_a_removed_clip_is_not_in_the_heartbeat() -> None:
    heartbeat = Heartbeat()
    heartbeat.move("a", "upload")
    heartbeat.remove("a")
    heartbeat.remove("a")
    assert not heartbeat.read().clips


def test_a_draining_worker_reports_it_in_its_heartbeat() -> None:
    heartbeat = Heartbeat()
    assert not heartbeat.read().is_draining
    heartbeat.drain()
    assert heartbeat.read().is_draining


def test_memory_is_that_of_this_process() -> None:
    assert abs(memory_bytes() - psutil.Process().memory_info().rss) < 16 << 20
