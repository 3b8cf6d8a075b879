"""What a worker says of itself while it computes."""

import psutil

from jobs.types import ClipProgress
from jobs.worker.heartbeat import Heartbeat, memory_bytes


def test_each_clip_is_where_it_last_moved_to_and_as_old_as_that_move() -> None:
    now = [100.0]
    heartbeat = Heartbeat(lambda: now[0])
    heartbeat.move("a", "denoise", 0)
    now[0] = 103.0
    heartbeat.move("b", "queue")
    heartbeat.move("a", "denoise", 1)
    now[0] = 110.0
    assert heartbeat.heartbeat().clips == (
        ClipProgress("a", "denoise", 1, 7.0),
        ClipProgress("b", "queue", None, 7.0),
    )


def test_a_clip_that_was_answered_for_is_gone() -> None:
    heartbeat = Heartbeat()
    heartbeat.move("a", "upload")
    heartbeat.leave("a")
    heartbeat.leave("a")
    assert not heartbeat.heartbeat().clips


def test_a_worker_that_was_told_to_end_says_so() -> None:
    heartbeat = Heartbeat()
    assert not heartbeat.heartbeat().is_draining
    heartbeat.drain()
    assert heartbeat.heartbeat().is_draining


def test_memory_is_that_of_this_process() -> None:
    assert abs(memory_bytes() - psutil.Process().memory_info().rss) < 16 << 20
