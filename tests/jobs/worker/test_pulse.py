"""What a worker says of itself while it computes."""

import psutil

from jobs.types import ClipProgress
from jobs.worker.heartbeat import Pulse, memory_bytes


def test_each_clip_is_where_it_last_moved_to_and_as_old_as_that_move() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    pulse.move("a", "denoise", 0)
    now[0] = 103.0
    pulse.move("b", "queue")
    pulse.move("a", "denoise", 1)
    now[0] = 110.0
    assert pulse.beat().clips == (ClipProgress("a", "denoise", 1, 7.0), ClipProgress("b", "queue", None, 7.0))


def test_a_clip_that_was_answered_for_is_gone() -> None:
    pulse = Pulse()
    pulse.move("a", "upload")
    pulse.leave("a")
    pulse.leave("a")
    assert not pulse.beat().clips


def test_a_worker_that_was_told_to_end_says_so() -> None:
    pulse = Pulse()
    assert not pulse.beat().is_draining
    pulse.drain()
    assert pulse.beat().is_draining


def test_memory_is_that_of_this_process() -> None:
    assert abs(memory_bytes() - psutil.Process().memory_info().rss) < 16 << 20
