"""The times of clips from records, and from counted operations where no record exists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.errors import PlacementError, RefusedError
from jobs.manifest.manifest import open_manifest
from jobs.plan.plan import Plan, make_plan
from jobs.records.commit import write_run
from jobs.records.keys import RUN_FILE, record_key
from jobs.records.schema import ClipRecord, WorkerIdentity, utc_iso
from jobs.settings.run_config import RunConfig, StoreConfig
from jobs.simulation.conditions import ClipKind, ClipTimes, Conditions
from jobs.simulation.measured import Measured, clip_times, read_measured, start_times
from jobs.simulation.planned import simulate_plan, timings_of_plan
from jobs.simulation.predicted import START_S, timings_of
from jobs.store.store import Store, open_store
from jobs.types import StageTiming
from pipelines.cost.prediction import H100, NVLINK_H100, Work, predict
from pipelines.device_marks import DeviceTime
from pipelines.parallel_config import ONE_DEVICE
from pipelines.request import VideoShape
from tests.builders.manifests import GROUPED_ROWS, MIXED_ROWS, jsonl
from tests.builders.records import RUN_ID, record_of
from tests.fakes.catalog import FakeCatalog

Write = Callable[[str, str | bytes], Path]
BEGAN_S = 1_000_000.0
BODY = b"video"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "out").as_uri(), StoreConfig())


def rendered(
    store: Store,
    number: int,
    begin_s: float,
    *,
    waited_s: float = 60.0,
    idle_s: float = 0.0,
    pid: int = 7,
    load_s: float | None = None,
    after_s: float = 0.0,
) -> ClipRecord:
    """Return the record of a clip: 1 s of text, two steps of 4 s, 2 s of decoding.

    Args:
        begin_s: moment at which the device begins it, in seconds of the run.
        waited_s: seconds for which it had waited for the device.
        after_s: seconds between the load and the clip.
        idle_s: seconds in which the device was idle since the clip before.
    """
    at = BEGAN_S + begin_s
    timings = [
        *([StageTiming("load", at - after_s - load_s, load_s)] if load_s is not None else []),
        StageTiming("queue", at - waited_s, waited_s),
        StageTiming("text", at, 1.0),
        StageTiming("denoise", at + 1, 4.0, 0),
        StageTiming("denoise", at + 5, 4.0, 1),
        StageTiming("decode", at + 9, 2.0),
        StageTiming("encode", at + 11, 3.0),
        StageTiming("check", at + 14, 1.0),
        StageTiming("upload", at + 15, 0.5),
    ]
    worker = WorkerIdentity("host-a", "node-a", "cpu", pid)
    record = record_of(store, BODY, f"{number:032x}")
    device_time = DeviceTime(11.0, idle_s)
    return replace(record, worker=worker, timings=tuple(timings), device_time=device_time)


def kept(store: Store, *records: ClipRecord) -> Store:
    write_run(store, RUN_ID, RUN_FILE, {"started_at": utc_iso(BEGAN_S)})
    for record in records:
        store.put(record_key(record.clip_id), record.to_json(), "application/json")
    return store


def test_a_clip_that_waited_has_the_time_in_which_the_device_was_idle_before_it(
    store: Store,
) -> None:
    records = [
        rendered(store, number, 20.0, idle_s=idle_s) for number, idle_s in ((1, 0.6), (2, 0.2))
    ]
    (times,) = clip_times(records).values()
    assert [one.device_s for one in times] == pytest.approx([11.6, 11.2])
    assert times[0]._replace(device_s=11.6) == ClipTimes(11.6, 4.0, 0.5, len(BODY))


def test_a_pause_in_which_the_device_had_nothing_is_not_the_clips_time(store: Store) -> None:
    """It is given the usual idle time, that of the clips which waited."""
    late = rendered(store, 9, 20.0, idle_s=500.0, waited_s=0.1)
    (alone,) = clip_times([late]).values()
    assert [one.device_s for one in alone] == [11.0]
    usual = [rendered(store, number, 20.0, idle_s=0.3) for number in range(3)]
    (times,) = clip_times([*usual, late]).values()
    assert times[3].device_s == pytest.approx(11.3)


def test_a_workers_start_is_its_process_its_load_and_the_way_of_its_first_clip(
    store: Store,
) -> None:
    """A replacement starts as quickly as the first workers, and a wait for devices is left out."""
    records = [
        rendered(store, 1, 25.0, load_s=20.0),  # its load begins at 5 s
        rendered(store, 2, 27.0, load_s=20.0, pid=8),  # at 7 s
        rendered(store, 3, 500.0, load_s=30.0, pid=9),  # a worker that was started later
    ]
    found = start_times(records, {RUN_ID: BEGAN_S})
    assert found == {records[0].model.name: pytest.approx([26.0, 26.0, 36.0])}
    slow = [rendered(store, 1, 28.0, load_s=20.0, after_s=3.0)]
    assert start_times(slow, {RUN_ID: BEGAN_S}) == {slow[0].model.name: [28.0]}
    late = [rendered(store, 1, 5_020.0, load_s=20.0)]
    assert start_times(late, {RUN_ID: BEGAN_S})[late[0].model.name] == [140.0]
    assert start_times(late, {}) == {late[0].model.name: [20.0]}


def test_records_of_other_models_and_damaged_ones_are_left_out(store: Store) -> None:
    whole = rendered(store, 1, 20.0, load_s=10.0)
    other = rendered(store, 2, 40.0)
    other = replace(other, model=replace(other.model, name="other"))
    kept(store, whole, other)
    store.put(record_key(f"{3:032x}"), b"{", "application/json")
    num_read: list[int] = []
    measured = read_measured(store, [whole.model.name], lambda: num_read.append(1))
    assert (measured.num_records, len(num_read)) == (1, 3)
    assert measured.starts_s == {whole.model.name: [20.0]}
    request = whole.request
    kind = ClipKind(whole.model.name, request.shape, 2, ONE_DEVICE)
    assert measured.clips == {kind: [ClipTimes(11.0, 4.0, 0.5, len(BODY))]}


def plan_of(write: Write, catalog: FakeCatalog, rows: Sequence[Mapping[str, object]]) -> Plan:
    return make_plan(open_manifest(write("a.jsonl", jsonl(rows)), catalog, model="tiny"), (), ())


NOTHING = Measured({}, {}, 0)


def test_clips_without_a_record_are_predicted_and_the_plan_says_so(
    write: Write, catalog: FakeCatalog
) -> None:
    plan = plan_of(write, catalog, MIXED_ROWS)
    timings = timings_of(plan.buckets, NOTHING, catalog, "file:///out")
    bucket = plan.buckets[0]
    work = Work(
        catalog.get(bucket.model).geometry, bucket.shape, bucket.num_inference_steps, bucket.method
    )
    (times,) = timings.clips[ClipKind.of(bucket)]
    assert times.device_s == predict(work, ONE_DEVICE, H100, NVLINK_H100).total_s
    assert times.host_s == times.upload_s == 0.0
    assert timings.starts_s == {"coarse": [START_S], "tiny": [START_S]}
    assert "predicted for H100s at 345 TFLOP/s (not measured)" in timings.sources[0]
    assert sorted(timings.sources[1:]) == [
        "a worker of coarse starts in 60 s (assumed)",
        "a worker of tiny starts in 60 s (assumed)",
    ]


def test_clips_of_another_size_are_scaled_from_the_most_similar_records(
    write: Write, catalog: FakeCatalog
) -> None:
    plan = plan_of(write, catalog, ({"prompt": "a"}, {"prompt": "b", "num_inference_steps": 4}))
    shape = VideoShape(17, 64, 64)
    eight, forty = (ClipKind("tiny", shape, steps, ONE_DEVICE) for steps in (8, 40))
    measured = Measured(
        {eight: [ClipTimes(8.0, 2.0, 1.0, 100)], forty: [ClipTimes(99.0)]}, {"tiny": [12.0]}, 2
    )
    timings = timings_of(plan.buckets, measured, catalog, "file:///out")
    (half,) = timings.clips[ClipKind("tiny", shape, 4, ONE_DEVICE)]
    # text and decoding do not become shorter with fewer steps
    assert 4.0 < half.device_s < 6.0
    assert half[1:] == (2.0, 1.0, 100)
    assert timings.clips[eight] == [ClipTimes(8.0, 2.0, 1.0, 100)]
    assert timings.sources == (
        "times of 1 kind of clip: 2 records of file:///out",
        "times of 1 kind of clip: scaled from records of another size by the counted operations",
        "a worker of tiny starts in 12 s (median of the records)",
    )


def test_a_plan_is_simulated_from_its_records(
    write: Write, catalog: FakeCatalog, store: Store
) -> None:
    """Two clips of 8 steps and one of 4 on two devices."""
    record = rendered(store, 1, 20.0, load_s=10.0)
    shape = VideoShape(17, 64, 64)
    sampling = replace(record.request.sampling, num_inference_steps=8)
    request = replace(record.request, shape=shape, sampling=sampling)
    record = replace(record, request=request, model=replace(record.model, name="tiny"))
    kept(store, record)
    rows: tuple[dict[str, object], ...] = (
        {"prompt": "a"}, {"prompt": "b", "num_inference_steps": 4}, {"prompt": "c"},
    )  # fmt: skip
    plan = plan_of(write, catalog, rows)
    timings, _ = timings_of_plan(plan, catalog, store)
    short_s = timings.clips[ClipKind("tiny", shape, 4, ONE_DEVICE)][0].device_s
    assert short_s < 11
    outcome = simulate_plan(plan, catalog, RunConfig(), timings, Conditions(2, driver_s=0.0))
    assert outcome.num_done == 3
    # the worker that is ready first gets all three, and hands the last one, which is short, back
    assert outcome.wall_s == pytest.approx(20 + 2 * 11 + 4.5)


def test_a_plan_that_is_done_or_a_group_without_a_place_is_refused(
    write: Write, catalog: FakeCatalog, store: Store
) -> None:
    manifest = open_manifest(write("a.jsonl", jsonl(GROUPED_ROWS)), catalog, model="tiny")
    done = make_plan(manifest, {spec.clip_id for spec in manifest.specs()}, ())
    with pytest.raises(RefusedError, match="nothing is left to render"):
        timings_of_plan(done, catalog, store)
    plan = make_plan(manifest, (), ())
    timings = timings_of(plan.buckets, NOTHING, catalog, "file:///out")
    with pytest.raises(PlacementError, match="no place for a group of 4 ranks"):
        simulate_plan(plan, catalog, RunConfig(), timings, Conditions(3))
    assert simulate_plan(plan, catalog, RunConfig(), timings, Conditions(8)).num_done == 5


@pytest.mark.parametrize("changes", [{"device": "cpu"}, {"dtype": "float32"}])
def test_a_model_for_the_cpu_is_not_predicted(write: Write, changes: dict[str, str]) -> None:
    catalog = FakeCatalog()
    tiny = catalog.models["tiny"]
    catalog.models["tiny"] = replace(tiny, config=replace(tiny.config, **changes))
    plan = plan_of(write, catalog, ({"prompt": "a"},))
    with pytest.raises(RefusedError, match="has no record of tiny.*render a few of them first"):
        timings_of(plan.buckets, NOTHING, catalog, "file:///out")
