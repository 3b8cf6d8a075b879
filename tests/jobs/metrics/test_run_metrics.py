"""The metrics of a run follow its events, whatever becomes of its workers."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.costs.run_cost import NO_COST, WASTES, DeviceHours, RunCost
from jobs.metrics import definitions as metric
from jobs.metrics.run_metrics import RunMetrics, WorkerCounts
from jobs.schedule.events import Attempt
from jobs.schedule.retry import Decision, Quarantine, Retry
from jobs.types import ClipDone, ClipFailed, ClipSpec, StageTiming, WorkerHeartbeat
from pipelines.device_marks import DeviceTime
from tests.builders.specs import spec
from tests.fakes.recorded import Recorded

TIMINGS = (
    StageTiming("text", 0.0, 1.0),
    StageTiming("denoise", 0.0, 2.0, 0),
    StageTiming("denoise", 0.0, 3.0, 1),
)
MODEL, NODE = "fake", "node-a"  # the model of `spec`


def metrics(
    recorded: Recorded,
    num_pending: int = 3,
    cost: Callable[[float], RunCost] = lambda _now: NO_COST,
) -> RunMetrics:
    found = RunMetrics(recorded.record, {MODEL: num_pending}, cost, "head")
    found.worker_ready("node-a:1", NODE)
    found.tick(0.0)
    return found


def done(one: ClipSpec, *, busy_s: float = 6.0) -> ClipDone:
    return ClipDone(one.clip_id, one.name, 1, TIMINGS, DeviceTime(busy_s, 1.0))


def failed(one: ClipSpec) -> ClipFailed:
    return ClipFailed(
        clip_id=one.clip_id,
        name=one.name,
        attempt=1,
        failure_class="code",
        may_pass_on_retry=False,
        error_type="SomeError",
        message="a stranger's text",
        traceback="",
        worker="node-a:1",
        timings=TIMINGS[:1],
    )


def test_a_committed_clip_is_counted_with_its_device_time_and_the_seconds_of_each_stage() -> None:
    recorded, one = Recorded(), spec("sunrise")
    run = metrics(recorded)
    run.clip_started("node-a:1", Attempt(one))
    assert recorded.value(metric.CLIPS_COMMITTED, MODEL, NODE) == 0, "else no increase is seen"
    run.clip_done(done(one))
    assert recorded.value(metric.CLIPS_COMMITTED, MODEL, NODE) == 1
    assert recorded.value(metric.DEVICE_BUSY, MODEL, NODE) == 6.0
    assert recorded.value(metric.DEVICE_IDLE, MODEL, NODE) == 1.0
    name = metric.STAGE_SECONDS.name
    assert recorded.observed == {(name, (MODEL, "text")): [1.0], (name, (MODEL, "denoise")): [5.0]}


@pytest.mark.parametrize(("decision", "num"), [(Retry(2), 0), (Quarantine("enough"), 1)])
def test_a_failed_attempt_is_counted_and_so_is_a_clip_in_quarantine(
    decision: Decision, num: int
) -> None:
    recorded, one = Recorded(), spec("sunrise")
    run = metrics(recorded)
    run.clip_started("node-a:1", Attempt(one))
    run.clip_failed(failed(one), decision)
    run.tick(1.0)
    assert recorded.value(metric.ATTEMPTS_FAILED, MODEL, NODE) == 1
    assert recorded.value(metric.CLIPS_QUARANTINED, MODEL) == num
    assert recorded.value(metric.CLIPS_WAITING, MODEL) == 3 - num
    assert recorded.value(metric.CLIPS_COMMITTED, MODEL, NODE) == 0


def test_the_failure_of_a_lost_workers_clip_is_its_nodes() -> None:
    recorded, one = Recorded(), spec("sunrise")
    run = metrics(recorded)
    run.clip_started("node-a:1", Attempt(one))
    run.worker_stopped("node-a:1", is_lost=True)
    run.clip_failed(failed(one), Retry(2))
    assert recorded.value(metric.WORKERS_LOST) == 1
    assert recorded.value(metric.ATTEMPTS_FAILED, MODEL, NODE) == 1


def test_clips_of_a_worker_that_ended_wait_again() -> None:
    recorded, one = Recorded(), spec("sunrise")
    run = metrics(recorded)
    run.clip_started("node-a:1", Attempt(one))
    run.tick(1.0)
    assert recorded.value(metric.CLIPS_IN_FLIGHT, MODEL) == 1
    assert recorded.value(metric.CLIPS_WAITING, MODEL) == 2
    run.worker_stopped("node-a:1", is_lost=False)
    run.tick(2.0)
    assert recorded.value(metric.CLIPS_IN_FLIGHT, MODEL) == 0
    assert recorded.value(metric.CLIPS_WAITING, MODEL) == 3
    assert recorded.value(metric.WORKERS_LOST) == 0


def test_clips_of_a_broken_model_have_one_label_whatever_a_manifest_calls_it() -> None:
    recorded = Recorded()
    run = metrics(recorded)
    run.clip_quarantined(None)
    run.clip_quarantined(MODEL)
    run.tick(1.0)
    assert recorded.value(metric.CLIPS_QUARANTINED, metric.UNUSABLE) == 1
    assert recorded.value(metric.CLIPS_QUARANTINED, MODEL) == 1
    assert recorded.value(metric.CLIPS_WAITING, MODEL) == 2, "the other one was never pending"
    assert recorded.value(metric.CLIPS_WAITING, metric.UNUSABLE) is None


def cost_of(price: float | None, **parts: float) -> RunCost:
    return RunCost.of((DeviceHours.of(MODEL, "cpu", parts, price),), "")


def test_held_devices_waste_and_cost_follow_the_ledger_of_the_run() -> None:
    recorded, costs = Recorded(), [cost_of(2.5), cost_of(2.5, denoise=1.0), cost_of(None, lost=3.0)]
    run = metrics(recorded, cost=lambda now: costs[int(now)])
    assert recorded.value(metric.DEVICE_WASTED, MODEL, "lost") == 0, "else no increase is seen"
    run.workers_counted([WorkerCounts(MODEL, num_waiting=5, num_loading=1, num_ready=2)])
    run.tick(1.0)
    assert recorded.value(metric.DEVICE_HELD, MODEL) == 3600
    assert recorded.value(metric.COST, MODEL) == 2.5
    workers = [
        recorded.value(metric.WORKERS, MODEL, one) for one in ("waiting", "loading", "ready")
    ]
    assert workers == [5, 1, 2]
    run.workers_counted([])
    run.tick(2.0)
    assert recorded.value(metric.DEVICE_HELD, MODEL) == 3 * 3600
    assert recorded.value(metric.DEVICE_WASTED, MODEL, "lost") == 3 * 3600
    assert recorded.value(metric.COST, MODEL) == 2.5, "a counter never goes back"
    assert recorded.value(metric.WORKERS, MODEL, "ready") == 0


def test_without_a_price_there_is_no_cost() -> None:
    recorded = Recorded()
    run = metrics(recorded, cost=lambda _now: cost_of(None, denoise=1.0))
    run.tick(3600.0)
    assert recorded.value(metric.DEVICE_HELD, MODEL) == 3600
    assert recorded.value(metric.COST, MODEL) is None


def test_the_spool_is_its_nodes_and_ends_with_the_last_worker_there() -> None:
    recorded = Recorded()
    run = metrics(recorded)
    run.worker_ready("node-a:2", NODE)
    run.worker_heartbeat("node-a:1", WorkerHeartbeat((), 0, spool_bytes=700))
    run.worker_heartbeat("node-a:2", WorkerHeartbeat((), 0, spool_bytes=500))
    run.worker_heartbeat("node-a:2", WorkerHeartbeat((), 0))  # a group that forms
    run.tick(1.0)
    assert recorded.value(metric.SPOOL_BYTES, NODE) == 500
    run.worker_stopped("node-a:2", is_lost=False)
    assert recorded.value(metric.SPOOL_BYTES, NODE) == 500
    run.worker_stopped("node-a:1", is_lost=True)
    assert recorded.value(metric.SPOOL_BYTES, NODE) == 0


def test_each_retry_is_counted_once_whatever_heartbeats_repeat() -> None:
    recorded, by_driver = Recorded(), [0]
    run = RunMetrics(
        recorded.record, {MODEL: 3}, driver_node="head", num_retries=lambda: by_driver[0]
    )
    run.worker_ready("node-a:1", NODE)
    for num_retries in (2, 2, 0, 3):  # 0: a group that forms
        run.worker_heartbeat("node-a:1", WorkerHeartbeat((), 0, num_s3_retries=num_retries))
    for at_s, by_driver[0] in enumerate((0, 4, 4)):
        run.tick(float(at_s))
    assert recorded.value(metric.S3_RETRIES, NODE) == 3
    assert recorded.value(metric.S3_RETRIES, "head") == 4


def test_a_heartbeat_of_an_unknown_worker_is_ignored() -> None:
    recorded = Recorded()
    metrics(recorded).worker_heartbeat("other:1", WorkerHeartbeat((), 0, spool_bytes=5))
    assert not any(name == metric.SPOOL_BYTES.name for name, _ in recorded.values)


def test_gauges_are_recorded_once_a_second() -> None:
    recorded = Recorded()
    run = metrics(recorded)
    run.clip_started("node-a:1", Attempt(spec("sunrise")))
    run.tick(0.5)
    assert recorded.value(metric.CLIPS_IN_FLIGHT, MODEL) == 0
    run.tick(1.0)
    assert recorded.value(metric.CLIPS_IN_FLIGHT, MODEL) == 1
    run.clip_done(done(spec("sunrise")))
    run.publish(1.1)  # the end of a run
    assert recorded.value(metric.CLIPS_IN_FLIGHT, MODEL) == 0
    assert recorded.value(metric.CLIPS_WAITING, MODEL) == 2


def test_labels_come_from_no_prompt_no_id_and_no_message() -> None:
    recorded = Recorded()
    run = metrics(recorded)
    one = spec("a-secret-prompt")
    one = replace(one, model=replace(one.model, name='bad"name\n'))
    run.clip_started("node-a:1", Attempt(one))
    run.clip_failed(failed(one), Quarantine("a stranger's text"))
    run.tick(1.0)
    labels = {label for _, labels in (*recorded.values, *recorded.observed) for label in labels}
    assert "bad_name_" in labels
    allowed = {"bad_name_", MODEL, NODE, "head", "waiting", "loading", "ready", "text", *WASTES}
    assert labels <= allowed


@given(st.lists(st.sampled_from(["start", "done", "retry", "quarantine", "return", "lose"])))
def test_waiting_and_in_flight_add_up_to_the_clips_that_are_left(steps: list[str]) -> None:
    recorded, specs = Recorded(), [spec("sunrise", seed) for seed in range(8)]
    run = metrics(recorded, num_pending=len(specs))
    waiting, in_flight, num_ended = list(specs), list[ClipSpec](), 0
    for at_s, step in enumerate(steps, 1):
        if step == "start" and waiting:
            in_flight.append(waiting.pop())
            run.clip_started("node-a:1", Attempt(in_flight[-1]))
        elif step == "lose":
            run.worker_stopped("node-a:1", is_lost=True)
            for one in in_flight:
                run.clip_failed(failed(one), Retry(2))
            waiting, in_flight = waiting + in_flight, []
            run.worker_ready("node-a:1", NODE)
        elif step in ("done", "quarantine") and in_flight:
            one, num_ended = in_flight.pop(), num_ended + 1
            if step == "done":
                run.clip_done(done(one))
            else:
                run.clip_failed(failed(one), Quarantine("enough"))
        elif step in ("retry", "return") and in_flight:
            waiting.append(in_flight.pop())
            if step == "retry":
                run.clip_failed(failed(waiting[-1]), Retry(2))
            else:
                run.clip_returned(waiting[-1].clip_id)
        run.tick(float(at_s))
        assert recorded.value(metric.CLIPS_WAITING, MODEL) == len(waiting)
        assert recorded.value(metric.CLIPS_IN_FLIGHT, MODEL) == len(in_flight)
    assert len(waiting) + len(in_flight) + num_ended == len(specs)
