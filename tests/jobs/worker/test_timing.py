from collections.abc import Iterator

import pytest

from jobs.types import StageTiming
from jobs.worker.stage_marks import StageMarks
from jobs.worker.timing import StageClock, load_timings
from pipelines.device_marks import DeviceTime, HostMark
from pipelines.load_progress import PartTiming


def clock_at(*times: float) -> StageClock:
    """A clock that begins at 0 s, whose further readings are given."""
    readings: Iterator[float] = iter((0.0, *times))
    return StageClock(monotonic=lambda: next(readings), wall=lambda: 1000.0)


def marks_at(*times: float) -> StageMarks:
    """The marks of a clip that the device passes at the given times."""
    readings = iter(times)
    return StageMarks(lambda: HostMark(next(readings)))


def durations(clock: StageClock) -> list[tuple[str, int | None, float]]:
    return [(timing.stage, timing.step, timing.duration_s) for timing in clock.timings]


def test_a_stage_lasts_from_its_begin_to_its_end() -> None:
    clock = clock_at(1.0, 3.5)
    with clock.measure("encode"):
        pass
    assert clock.timings == (StageTiming("encode", 1000.0, 2.5),)


def test_a_stage_that_fails_is_timed_too() -> None:
    clock = clock_at(1.0, 2.0)
    with pytest.raises(KeyError), clock.measure("encode"):
        raise KeyError
    assert durations(clock) == [("encode", None, 1.0)]


def test_stages_and_steps_of_the_device_are_timed_by_its_marks() -> None:
    """The time between two stages belongs to neither, and the device was idle in it."""
    clock = StageClock(monotonic=lambda: 10.0, wall=lambda: 1000.0)
    marks = marks_at(12.0, 12.5, 13.0, 14.0, 15.0, 17.0, 18.5, 20.5)
    clock.enter("queue")
    marks.end_queue(HostMark(11.5))
    marks.add(StageTiming("load", 1.0, 4.0))
    with marks.stage("text"):
        pass
    end_step = marks.steps()
    for step in range(2):
        end_step(step)
    with marks.stage("decode"):
        pass
    marks.close()
    clock.follow(marks)
    assert durations(clock) == [
        ("queue", None, 2.0),
        ("load", None, 4.0),
        ("text", None, 0.5),
        ("denoise", 0, 1.0),
        ("denoise", 1, 2.0),
        ("decode", None, 2.0),
    ]
    assert [timing.started_at for timing in clock.timings[2:]] == [1002.5, 1004.0, 1005.0, 1008.5]
    assert clock.device_time == DeviceTime(5.5, 3.5)


def test_the_first_clip_of_a_worker_counts_from_its_own_begin() -> None:
    clock, marks = StageClock(), marks_at(12.0, 13.0, 15.0)
    marks.end_queue(None)
    with marks.stage("decode"):
        pass
    marks.close()
    clock.follow(marks)
    assert clock.device_time == DeviceTime(2.0, 1.0)


def test_a_stage_of_the_device_that_fails_is_timed_too() -> None:
    clock, marks = StageClock(), marks_at(1.0, 2.0, 5.0)
    marks.end_queue(None)
    with pytest.raises(KeyError), marks.stage("text"):
        raise KeyError
    marks.close()
    clock.follow(marks)
    assert durations(clock)[1:] == [("text", None, 3.0)]


def test_the_parts_of_a_load_stand_behind_it_with_all_imports_as_one() -> None:
    whole = StageTiming("load", 10.0, 9.0)
    parts = (
        PartTiming("import", "torch", 10.0, 2.0),
        PartTiming("verify", "", 10.5, 4.0),
        PartTiming("import", "diffusers", 12.0, 3.0),
        PartTiming("read", "", 15.0, 1.0),
    )
    assert load_timings(whole, parts) == (
        whole,
        StageTiming("load_import", 10.0, 5.0),
        StageTiming("load_verify", 10.5, 4.0),
        StageTiming("load_read", 15.0, 1.0),
    )
    assert load_timings(whole, ()) == (whole,)
