import dataclasses
import json
from pathlib import Path

import pytest

from jobs.errors import ObjectMissingError, RecordError, TooManyFailuresError
from jobs.records.keys import STATUS_FILE
from jobs.records.lease_record import LeaseOwner, LeaseRecord
from jobs.records.run_status import (
    MAX_MESSAGE,
    ClipInFlight,
    FailureSeen,
    KindStatus,
    LoadingWorkers,
    RunDeadline,
    RunStatus,
    RunStop,
    RunSummary,
    read_status,
    write_status,
)
from jobs.records.strict_json import from_dataclass, to_dataclass
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.timetable.dated_output import OutputDay

CLIP_ID = "0123456789abcdef" * 2
STATUS = RunStatus(
    run_id="20260131-120000-abcdef",
    state="rendering",
    updated_at="2026-01-31T12:10:00.000Z",
    num_clips=100,
    num_done_before=10,
    num_committed=20,
    num_quarantined=1,
    num_failures=3,
    num_workers=2,
    num_workers_lost=1,
    busy_share=0.981,
    stop=None,
    output_day=OutputDay("s3://renders/{date}", "2026-01-31", "UTC"),
    deadline=RunDeadline("2026-02-01T07:00:00.000Z", "Europe/Berlin"),
    elapsed_s=600.0,
    clips_per_hour=120.0,
    eta_s=2070.0,
    eta_low_s=1800.0,
    eta_high_s=2500.0,
    waiting_for="2 devices, held by other jobs",
    loading=(LoadingWorkers(("import", "verify"), 7, 0.4),),
    kinds=(KindStatus("wan", 81, 480, 832, 30, 2, 90, 20, 1, 4, 120.0, 210.5),),
    in_flight=(ClipInFlight(CLIP_ID, "spring-31", "node-a/0", "denoise", 3, 8, 12.5),),
    last_failures=(
        FailureSeen(
            clip_id=CLIP_ID,
            name="spring-7",
            failure_class="memory",
            error_type="OutOfMemoryError",
            message="out of memory",
            failed_at="2026-01-31T12:09:00.000Z",
        ),
    ),
    num_log_bytes_dropped=0,
    log_trouble=None,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


def test_a_status_comes_back_as_it_was_written(store: Store) -> None:
    write_status(store, STATUS)
    assert list(store.keys("")) == [f"runs/{STATUS.run_id}/{STATUS_FILE}"]
    assert read_status(store, STATUS.run_id) == STATUS


def test_a_later_status_stands_in_place_of_the_earlier(store: Store) -> None:
    write_status(store, STATUS)
    later = dataclasses.replace(
        STATUS, num_committed=21, clips_per_hour=None, eta_s=None, in_flight=()
    )
    write_status(store, later)
    assert read_status(store, STATUS.run_id) == later


def test_a_run_without_a_status_is_named(store: Store) -> None:
    with pytest.raises(ObjectMissingError, match=r"runs/other/status\.json does not exist"):
        read_status(store, "other")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("run_id", "../x", "run_id must be"),
        ("updated_at", "yesterday", "updated_at must be a time"),
        ("num_committed", -1, "num_committed must be at least 0"),
        ("elapsed_s", -1.0, "elapsed_s must be at least 0"),
    ],
)
def test_an_impossible_status_is_refused(field: str, value: object, message: str) -> None:
    with pytest.raises(RecordError, match=message):
        dataclasses.replace(STATUS, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_committed", 10**400, "num_committed must be at most 9223372036854775807 in size"),
        ("num_log_bytes_dropped", 2**63, "num_log_bytes_dropped must be at most 9223372036854775"),
        ("elapsed_s", 1.7e308, "elapsed_s must be at most 253402300799 seconds"),
        ("eta_s", 1e12, "eta_s must be at most 253402300799 seconds"),
    ],
)
def test_a_number_beyond_every_count_and_calendar_is_refused(
    field: str, value: object, message: str
) -> None:
    document = json.loads(STATUS.to_json()) | {field: value}
    with pytest.raises(RecordError, match=message):
        RunStatus.from_json(json.dumps(document).encode())


def test_the_totals_of_a_summary_are_times_too() -> None:
    summary = RunSummary.of(STATUS, {"denoise": 1e11}, 0)
    document = from_dataclass(summary)
    assert to_dataclass(RunSummary, document) == summary
    document["stage_totals_s"]["decode"] = 1.7e308
    with pytest.raises(RecordError, match=r"stage_totals_s\.decode must be at most .* seconds"):
        to_dataclass(RunSummary, document)


def test_a_lease_of_a_process_with_hundreds_of_digits_is_refused() -> None:
    at = STATUS.updated_at
    lease = LeaseRecord("run-1", LeaseOwner("host-a", 7), at, at, at, is_released=False)
    assert LeaseRecord.from_json(lease.to_json()) == lease
    content = lease.to_json().replace(b'"pid": 7', b'"pid": 1' + b"0" * 400)
    with pytest.raises(
        RecordError, match=r"owner\.pid must be at most 9223372036854775807 in size"
    ):
        LeaseRecord.from_json(content)


def test_an_unknown_state_of_a_run_is_refused(store: Store) -> None:
    store.put(
        f"runs/{STATUS.run_id}/status.json",
        STATUS.to_json().replace(b'"rendering"', b'"asleep"'),
        "text/plain",
    )
    with pytest.raises(RecordError, match="state must be 'rendering' or"):
        read_status(store, STATUS.run_id)


@pytest.mark.parametrize(
    "kind",
    [
        RunStatus, RunStop, RunSummary, ClipInFlight, FailureSeen, KindStatus, LeaseRecord,
        LeaseOwner,
    ],
)  # fmt: skip
def test_every_field_is_documented(kind: type) -> None:
    text = (
        Path(__file__)
        .parents[3]
        .joinpath("docs", "how-to", "operating.md")
        .read_text(encoding="utf-8")
    )
    assert not {field.name for field in dataclasses.fields(kind) if f"`{field.name}`" not in text}


def test_a_stop_names_its_error_and_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-secret-key")
    expected = RunStop.of(TooManyFailuresError("3 of 4 clips"))
    assert expected == RunStop("TooManyFailuresError", "3 of 4 clips")
    unexpected = RunStop.of(ZeroDivisionError("by planted-secret-key" + "x" * 10_000))
    assert unexpected.message.startswith("unexpected ZeroDivisionError: by ")
    assert "planted" not in unexpected.message
    assert len(unexpected.message) == MAX_MESSAGE


def test_a_stopped_run_and_its_summary_say_why(store: Store) -> None:
    stop = RunStop("StoppedError", "by SIGTERM; run it again to go on")
    last = dataclasses.replace(STATUS, state="stopped", stop=stop)
    write_status(store, last)
    assert read_status(store, STATUS.run_id).stop == stop
    assert RunSummary.of(last, {}, 79).stop == stop
