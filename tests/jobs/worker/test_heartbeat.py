"""The heartbeat of a worker while it computes."""

import psutil
import pytest

from jobs.types import ClipProgress
from jobs.worker.heartbeat import Heartbeat, memory_bytes
from jobs.worker.stage_marks import StageMarks
from jobs.worker.timing import StageClock
from pipelines.device_marks import HostMark
from pipelines.load_progress import LoadProgress


def clock_by(now: list[float]) -> StageClock:
    """A clock that reads the first entry of `now`."""
    return StageClock(monotonic=lambda: now[0])


def test_a_heartbeat_has_the_last_stage_of_each_clip_and_its_age() -> None:
    now = [100.0]
    heartbeat, a, b = Heartbeat(LoadProgress()), clock_by(now), clock_by(now)
    with heartbeat.clip("a", a), heartbeat.clip("b", b):
        marks = StageMarks(lambda: HostMark(now[0]))
        end_step = marks.steps()
        now[0] = 103.0
        b.enter("queue")
        end_step(0)
        marks.close()
        a.follow(marks)
        now[0] = 110.0
        assert heartbeat.read().clips == (
            ClipProgress("a", "denoise", 1, 7.0),
            ClipProgress("b", "queue", None, 7.0),
        )


def test_a_clip_whose_attempt_ended_is_not_in_the_heartbeat() -> None:
    heartbeat = Heartbeat(LoadProgress())
    with heartbeat.clip("a", StageClock()):
        assert [clip.stage for clip in heartbeat.read().clips] == ["lookup"]
    assert not heartbeat.read().clips
    with pytest.raises(KeyError), heartbeat.clip("a", StageClock()):
        raise KeyError
    assert not heartbeat.read().clips


def test_a_draining_worker_reports_it_in_its_heartbeat() -> None:
    heartbeat = Heartbeat(LoadProgress())
    assert not heartbeat.read().is_draining
    heartbeat.drain()
    assert heartbeat.read().is_draining


def test_memory_is_that_of_this_process() -> None:
    assert abs(memory_bytes() - psutil.Process().memory_info().rss) < 16 << 20
