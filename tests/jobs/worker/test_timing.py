from collections.abc import Iterator

import pytest

from jobs.types import StageTiming
from jobs.worker.timing import StageClock, load_timings
from pipelines.load_progress import PartTiming


def clock_at(*times: float) -> StageClock:
    """A clock that begins at 0 s, whose further readings are given, and whose device is done."""
    readings: Iterator[float] = iter((0.0, *times))
    return StageClock(monotonic=lambda: next(readings), wall=lambda: 1000.0)


def test_a_stage_lasts_from_its_begin_to_its_end() -> None:
    clock = clock_at(1.0, 3.5)
    with clock.measure("decode"):
        pass
    (timing,) = clock.timings
    assert (timing.stage, timing.started_at, timing.duration_s, timing.step) == (
        "decode",
        1000.0,
        2.5,
        None,
    )


def test_a_stage_that_fails_is_timed_too() -> None:
    clock = clock_at(1.0, 2.0)
    with pytest.raises(KeyError), clock.measure("text"):
        raise KeyError
    assert [timing.duration_s for timing in clock.timings] == [1.0]


def test_steps_are_timed_one_after_the_other() -> None:
    clock = clock_at(10.0, 11.0, 13.0, 16.0)
    end_step = clock.steps()
    for step in range(3):
        end_step(step)
    assert [(timing.step, timing.duration_s) for timing in clock.timings] == [
        (0, 1.0),
        (1, 2.0),
        (2, 3.0),
    ]


def test_the_device_is_waited_for_before_the_clock_is_read() -> None:
    told: list[str] = []

    def now() -> float:
        told.append("clock")
        return 0.0

    clock = StageClock(lambda: told.append("device"), monotonic=now, wall=lambda: 0.0)
    told.clear()
    with clock.measure_device("decode"):
        told.append("work")
    assert told == ["clock", "work", "device", "clock"]
    told.clear()
    with clock.measure("encode"):
        told.append("work")
    assert told == ["clock", "work", "clock"]


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
