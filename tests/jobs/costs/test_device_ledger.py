"""The device-hours of a run: each second of a worker's devices is in one part, and in one only."""

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.costs.device_ledger import DeviceLedger, DevicesFreed, DevicesHeld, DevicesReady
from jobs.costs.run_cost import STAGES, WASTES, RunCost
from jobs.settings.cost_config import CostConfig
from jobs.types import ClipDone, ClipFailed, StageTiming
from pipelines.device_marks import DeviceTime

H100 = "NVIDIA H100 80GB HBM3"
HOUR_S = 3600.0
PRICES = CostConfig("USD", None, {"H100": 2.0, "cpu": 0.5})
# a clip that waits for 10 s, renders for 100 s from 1,000 on by the worker's clock, and is
# encoded and uploaded within the next 20 s
TIMINGS = (
    StageTiming("queue", 990.0, 10.0),
    StageTiming("text", 1000.0, 10.0),
    StageTiming("denoise", 1010.0, 40.0, 0),
    StageTiming("denoise", 1050.0, 40.0, 1),
    StageTiming("decode", 1090.0, 10.0),
    StageTiming("encode", 1100.0, 5.0),
    StageTiming("upload", 1105.0, 15.0),
)


def done(
    clip: str, timings: tuple[StageTiming, ...] = TIMINGS, *, repeats: bool = False
) -> ClipDone:
    time = DeviceTime(1.0, 0.0) if timings else None
    return ClipDone(clip, clip, 1, timings, time, was_already_committed=repeats)


def failed(clip: str, *timings: StageTiming, is_spooled: bool = False) -> ClipFailed:
    return ClipFailed(
        clip_id=clip,
        name=clip,
        attempt=1,
        failure_class="code",
        may_pass_on_retry=True,
        error_type="SomeError",
        message="no",
        traceback="",
        worker="a:1",
        timings=timings,
        is_spooled=is_spooled,
    )


def started(num_devices: float = 1.0, prices: CostConfig = PRICES) -> DeviceLedger:
    """Return the ledger of one worker that has loaded in 60 s and holds two clips from then on."""
    ledger = DeviceLedger(prices)
    ledger.change(DevicesHeld((0, 0), "wan", num_devices), 0.0)
    ledger.change(DevicesReady((0, 0), "a:1", H100), 60.0)
    ledger.clip_started("a:1", "first", 60.0)
    ledger.clip_started("a:1", "second", 60.0)
    return ledger


def seconds(cost: RunCost) -> dict[str, float]:
    """Return the seconds of each part of a run with one model."""
    (row,) = cost.models
    parts = {**row.stage_hours, **row.wasted_hours}
    return {name: round(hours * HOUR_S, 6) for name, hours in parts.items()}


def test_a_worker_counts_from_its_devices_on_and_its_clips_by_their_stages() -> None:
    ledger = started()
    ledger.clip_done(done("first"), 190.0)  # its device time ended 20 s before
    assert seconds(ledger.cost(200.0)) == {
        "load": 60.0,
        "text": 10.0,
        "denoise": 80.0,
        "decode": 10.0,
        "running": 30.0,  # the second clip
        "idle": 10.0,
    }
    ledger.clip_done(done("second"), 300.0)
    ledger.change(DevicesFreed((0, 0), is_lost=False), 310.0)
    assert seconds(ledger.cost(9_999.0)) == {
        "load": 60.0,
        "text": 20.0,
        "denoise": 160.0,
        "decode": 20.0,
        "idle": 50.0,
    }


def test_stages_that_exceed_the_time_that_is_left_are_shortened_alike() -> None:
    """The clocks of a worker and of the driver may differ."""
    ledger = started()
    ledger.clip_done(done("first"), 110.0)
    ledger.clip_done(done("first"), 110.0)  # once more, which counts nothing
    found = seconds(ledger.cost(110.0))
    assert found == {"load": 60.0, "text": 5.0, "denoise": 40.0, "decode": 5.0}
    ledger.clip_done(done("first"), 900.0)
    assert seconds(ledger.cost(110.0)) == found


def test_a_group_counts_each_of_its_devices() -> None:
    ledger = started(num_devices=4.0)
    assert ledger.cost(100.0).device_hours == pytest.approx(4 * 100 / HOUR_S)


def test_a_lost_worker_wastes_what_it_did_since_its_last_clip() -> None:
    ledger = started()
    ledger.clip_done(done("first"), 190.0)
    ledger.change(DevicesFreed((0, 0), is_lost=True), 250.0)
    ledger.clip_failed(failed("second"), 250.0)  # it comes behind the loss, and adds nothing
    found = seconds(ledger.cost(250.0))
    assert (found["lost"], found["idle"]) == (80.0, 10.0)
    assert "failed" not in found


def test_a_load_that_fails_is_wasted_and_one_that_is_given_back_is_not() -> None:
    for is_lost, part in ((True, "lost"), (False, "load")):
        ledger = DeviceLedger()
        ledger.change(DevicesHeld((0, 0), "wan", 2.0), 5.0)
        ledger.change(DevicesFreed((0, 0), is_lost=is_lost), 35.0)
        assert seconds(ledger.cost(99.0)) == {part: 60.0}


@pytest.mark.parametrize(
    ("timings", "wasted_s"),
    [
        ((), 0.0),  # the store refused its lookup: the device never came to it
        (TIMINGS[:1], 90.0),  # in its first stage, which has no timing
        (TIMINGS[:3], 90.0),  # in its second step
        (TIMINGS[:5], 100.0),  # the checks refused its frames
        (TIMINGS[:6], 100.0),
        (TIMINGS, 100.0),
    ],
)
def test_a_failed_attempt_wastes_its_time_on_the_device(
    timings: tuple[StageTiming, ...], wasted_s: float
) -> None:
    ledger = started()
    checked = (StageTiming("check", 1100.0, 1.0),) if len(timings) == 5 else ()
    ledger.clip_failed(failed("first", *timings, *checked), 160.0)
    assert seconds(ledger.cost(160.0)).get("failed", 0.0) == wasted_s


def test_the_clip_behind_one_that_failed_on_the_device_runs_from_then_on() -> None:
    ledger = started()
    ledger.clip_failed(failed("first", *TIMINGS[:1]), 160.0)
    found = seconds(ledger.cost(170.0))
    assert (found["failed"], found["running"], found["idle"]) == (90.0, 10.0, 10.0)


def test_a_clip_that_failed_behind_its_encoding_is_of_use_if_it_waits_in_the_spool() -> None:
    ledger = started()
    ledger.clip_failed(failed("first", *TIMINGS, is_spooled=True), 190.0)
    ledger.clip_started("a:1", "first", 190.0)
    ledger.clip_done(done("first", TIMINGS[-1:]), 195.0)
    found = seconds(ledger.cost(195.0))
    assert found["denoise"] == 80.0
    assert not set(found).intersection(WASTES)


def test_a_clip_that_was_rendered_twice_is_wasted_and_one_found_committed_costs_nothing() -> None:
    ledger = started()
    ledger.clip_done(done("first", repeats=True), 190.0)
    ledger.clip_done(done("second", (), repeats=True), 191.0)
    found = seconds(ledger.cost(191.0))
    assert found["repeated"] == 100.0
    assert "denoise" not in found


def test_the_end_of_a_run_wastes_the_clips_under_way_and_stops_its_clock() -> None:
    ledger = started()
    ledger.clip_returned("second")
    ledger.end(100.0)
    ledger.end(500.0)
    assert seconds(ledger.cost(900.0)) == {"load": 60.0, "stopped": 40.0}


def test_a_price_goes_by_the_device_and_a_load_by_the_device_of_its_model() -> None:
    ledger = DeviceLedger(PRICES)
    ledger.change(DevicesHeld((0, 0), "wan", 1.0), 0.0)
    ledger.change(DevicesFreed((0, 0), is_lost=True), HOUR_S / 2)  # before a worker is ready
    ledger.change(DevicesHeld((0, 2), "wan", 1.0), HOUR_S / 2)
    ledger.change(DevicesReady((0, 2), "a:1", H100), HOUR_S * 0.75)
    ledger.change(DevicesHeld((0, 1), "wan", 1.0), 0.0)  # loads
    ledger.change(DevicesHeld((1, 0), "other", 1.0), 0.0)  # its device is not known yet
    ledger.change(DevicesHeld((2, 0), "small", 1.0), 0.0)
    ledger.change(DevicesReady((2, 0), "b:1", "cpu"), 10.0)
    cost = ledger.cost(HOUR_S)
    assert [(row.model, row.device, row.price) for row in cost.models] == [
        ("other", "", None),
        ("small", "cpu", 0.5),
        ("wan", H100, 4.0),
    ]
    assert (cost.device_hours, cost.price, cost.unpriced_hours) == (4.0, 4.5, 1.0)


# sums


STEPS = ("hold", "ready", "start", "done", "fail", "spool", "return", "lose", "free")
stage_timings = st.builds(
    StageTiming,
    st.sampled_from(["queue", "text", "denoise", "decode", "check", "encode", "upload"]),
    st.floats(0.0, 1e6),
    st.floats(0.0, 5_000.0),
)


@dataclass(frozen=True)
class Step:
    """A step of a run: its kind, the worker or clip of it, and a worker's claims about its times.

    Args:
        pick: chooses among the workers or the clips that are there.
    """

    kind: str
    pick: int
    later_s: float
    timings: tuple[StageTiming, ...]
    is_repeat: bool


@dataclass
class Played:
    """A ledger, and what its workers hold by a count of its own."""

    ledger: DeviceLedger = field(default_factory=lambda: DeviceLedger(PRICES))
    now: float = 0.0
    held: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    clips: list[str] = field(default_factory=list[str])
    ended_s: float = 0.0
    num_workers: int = 0
    num_clips: int = 0

    @property
    def all_s(self) -> float:
        return self.ended_s + sum(size * (self.now - since) for since, size in self.held.values())

    def play(self, step: Step) -> None:
        self.now += step.later_s
        if step.kind == "hold":
            self._hold(step.pick)
        elif step.kind in ("done", "fail", "spool", "return"):
            if self.clips:
                self._end_clip(self.clips.pop(step.pick % len(self.clips)), step)
        elif self.held:
            self._change(sorted(self.held)[step.pick % len(self.held)], step)

    def _hold(self, pick: int) -> None:
        number, size = self.num_workers, (1.0, 0.5, 4.0)[pick % 3]
        self.ledger.change(DevicesHeld((0, number), f"model-{pick % 2}", size), self.now)
        self.held[number] = (self.now, size)
        self.num_workers += 1

    def _change(self, number: int, step: Step) -> None:
        if step.kind == "ready":
            device = H100 if step.is_repeat else "cpu"
            self.ledger.change(DevicesReady((0, number), f"a:{number}", device), self.now)
        elif step.kind == "start":
            self.clips.append(f"clip-{self.num_clips}")
            self.num_clips += 1
            self.ledger.clip_started(f"a:{number}", self.clips[-1], self.now)
        else:
            self.ledger.change(DevicesFreed((0, number), is_lost=step.kind == "lose"), self.now)
            since, size = self.held.pop(number)
            self.ended_s += size * (self.now - since)

    def _end_clip(self, clip: str, step: Step) -> None:
        if step.kind == "done":
            self.ledger.clip_done(done(clip, step.timings, repeats=step.is_repeat), self.now)
        elif step.kind == "return":
            self.ledger.clip_returned(clip)
        else:
            failure = failed(clip, *step.timings, is_spooled=step.kind == "spool")
            self.ledger.clip_failed(failure, self.now)


steps_of_runs = st.builds(
    Step,
    st.sampled_from(STEPS),
    st.integers(0, 5),
    st.floats(0.0, 2_000.0),
    st.lists(stage_timings, max_size=6).map(tuple),
    st.booleans(),
)
BEGIN = [Step(kind, 0, 10.0, (), False) for kind in ("hold", "ready", "start", "start", "start")]


@given(st.lists(steps_of_runs, max_size=30))
def test_the_parts_add_up_to_the_time_for_which_devices_were_held(steps: list[Step]) -> None:
    """Whatever workers say about their times, and whatever becomes of them."""
    played = Played()
    for step in (*BEGIN, *steps):
        played.play(step)
        check_sums(played.ledger.cost(played.now), played.all_s)
    played.ledger.end(played.now)
    cost = played.ledger.cost(played.now + 1e6)
    check_sums(cost, played.all_s)
    assert not any("running" in row.stage_hours for row in cost.models)


def check_sums(cost: RunCost, all_s: float) -> None:
    """Check that the parts are the whole, and that no part is unknown or negative."""
    assert cost.device_hours * HOUR_S == pytest.approx(all_s, abs=1e-6)
    useful = math.fsum(hours for row in cost.models for hours in row.stage_hours.values())
    wasted = math.fsum(hours for row in cost.models for hours in row.wasted_hours.values())
    assert useful + wasted == pytest.approx(cost.device_hours, abs=1e-9)
    assert cost.wasted_hours == pytest.approx(wasted, abs=1e-9)
    for row in cost.models:
        assert set(row.stage_hours) <= set(STAGES)
        assert set(row.wasted_hours) <= set(WASTES)
        assert min([*row.stage_hours.values(), *row.wasted_hours.values()], default=0.0) >= 0
    assert sum(row.price or 0.0 for row in cost.models) == pytest.approx(cost.price or 0.0)
