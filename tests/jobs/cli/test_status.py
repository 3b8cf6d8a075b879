"""The text of `nagfarm status`, above all whether the run of an output is still alive."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from jobs.cli.outputs.status import run_lines, status_lines
from jobs.cli.pattern.wording import table_lines
from jobs.costs.run_cost import DeviceHours, RunCost
from jobs.overview.output_status import newest_run, read_output_status
from jobs.records.commit import write_failure, write_quarantine, write_run
from jobs.records.keys import STATUS_FILE, lease_key, record_key, run_key
from jobs.records.lease import Lease
from jobs.records.lease_record import LeaseOwner, LeaseRecord
from jobs.records.run_status import (
    LoadingWorkers,
    RunState,
    RunStatus,
    RunStop,
    write_status,
)
from jobs.records.schema import utc_iso
from jobs.settings.run_config import StoreConfig
from jobs.store.store import Store, open_store
from jobs.store.uri import StoredObject
from jobs.text import duration
from jobs.watch.seen import end_of, read_seen
from jobs.watch.wording import run_state_text
from tests.builders.records import AT_S, RUN_ID, failure_of, quarantine_of, record_of
from tests.builders.statuses import CLIP_ID, status_of

OWNER = LeaseOwner("host-a", 7)


def lease_of(
    run_id: str = RUN_ID, renewed_s: float = AT_S, *, is_released: bool = False
) -> LeaseRecord:
    return LeaseRecord(
        run_id, OWNER, utc_iso(AT_S), utc_iso(renewed_s), utc_iso(renewed_s + 60), is_released
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri(), StoreConfig())


def write_status_at(store: Store, status: RunStatus, at_s: float = AT_S) -> None:
    """Write a status, which the store dates."""
    write_status(store, status)
    path = Path(unquote(urlsplit(store.uri).path), run_key(status.run_id, STATUS_FILE))
    os.utime(path, (at_s, at_s))


def shown(store: Store, now: float) -> str:
    return "\n".join(status_lines(read_output_status(store), now))


@pytest.mark.parametrize("at_s", [1e12, -1e12, -1.0])
def test_a_time_that_no_clock_shows_is_unknown_and_the_drivers_own_stands(
    store: Store, monkeypatch: pytest.MonkeyPatch, at_s: float
) -> None:
    """A program may set the time of a file to any number, on file systems that keep it."""
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, status_of("rendering"))
    entries = store.entries

    def strange(prefix: str = "") -> Iterator[StoredObject]:
        return (dataclasses.replace(one, modified_at=at_s) for one in entries(prefix))

    monkeypatch.setattr(store, "entries", strange)
    assert read_output_status(store).run_written_at is None
    assert "rendering, last heartbeat 30 s ago" in shown(store, AT_S + 30)
    found = read_seen(store)
    assert found.by_store == status_of("rendering")
    assert end_of(found, AT_S + 30) is None


# the state of a run

IS_STALE = "although its driver is alive: the clips shown here are stale"
IS_OVER = "another driver has taken this output since"
IS_DEAD = "the driver is dead or cannot reach the store; render resumes the run"


@pytest.mark.parametrize(
    ("lease", "after_s", "expected"),
    [
        (lease_of(), 5, "rendering, last heartbeat 5 s ago"),
        (lease_of(renewed_s=AT_S + 590), 600, f"rendering, last status 10 min ago, {IS_STALE}"),
        (lease_of(), 720, f"last heartbeat 12 min ago: {IS_DEAD}"),
        (lease_of(renewed_s=AT_S + 120), 720, f"last heartbeat 10 min ago: {IS_DEAD}"),
        (lease_of("other", AT_S + 300), 310,
         f"rendering at its last heartbeat, 5 min ago; {IS_OVER}"),
        (lease_of(renewed_s=AT_S + 100, is_released=True), 110,
         "its driver ended 10 s ago without a final status"),
        (None, 30, "rendering, last heartbeat 30 s ago"),
        (None, 7200, f"last heartbeat 2 h ago: {IS_DEAD}"),
    ],
)  # fmt: skip
def test_a_run_counts_as_active_as_long_as_its_lease_lasts(
    lease: LeaseRecord | None, after_s: float, expected: str
) -> None:
    assert run_state_text(status_of(), lease, AT_S + after_s) == expected


@pytest.mark.parametrize("state", ["finished", "stopped"])
def test_a_run_that_ended_is_never_called_dead(state: RunState) -> None:
    assert (
        run_state_text(status_of(state), lease_of(is_released=True), AT_S + 86_400 * 3)
        == f"{state} 3 days ago"
    )


BY_SIGNAL = RunStop("StoppedError", "by SIGTERM; run it again to go on")


@pytest.mark.parametrize(
    ("state", "lease", "expected"),
    [
        ("stopped", None, f"stopped 5 s ago: {BY_SIGNAL.message}"),
        ("draining", lease_of(), f"draining, last heartbeat 5 s ago: {BY_SIGNAL.message}"),
        ("draining", lease_of(is_released=True),
         f"its driver ended 5 s ago without a final status: {BY_SIGNAL.message}"),
        ("draining", lease_of(renewed_s=AT_S - 600),
         f"last heartbeat 5 s ago: {IS_DEAD}; it had been asked to stop: {BY_SIGNAL.message}"),
    ],
)  # fmt: skip
def test_a_run_that_was_stopped_says_why(
    state: RunState, lease: LeaseRecord | None, expected: str
) -> None:
    run = dataclasses.replace(status_of(state), stop=BY_SIGNAL)
    assert run_state_text(run, lease, AT_S + 5) == expected


def test_a_heartbeat_from_a_clock_that_is_ahead_has_an_age_of_0_s() -> None:
    assert (
        run_state_text(status_of(at_s=AT_S + 40), lease_of(renewed_s=AT_S + 40), AT_S)
        == "rendering, last heartbeat 0 s ago"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (119, "119 s"), (720, "12 min"), (7300, "2 h"), (200_000, "2 days")],
)
def test_durations_are_in_the_largest_unit_that_they_fill_twice(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_that_could_not_be_written_is_named() -> None:
    lost = dataclasses.replace(
        status_of(), num_log_bytes_dropped=1234, log_trouble="No space left on device"
    )
    line = "  log          1,234 bytes could not be written: No space left on device"
    assert line in run_lines(lost, lease_of(), AT_S)
    assert not [one for one in run_lines(status_of(), lease_of(), AT_S) if "  log " in one]


# the whole text


def test_an_output_without_any_run_is_described(store: Store) -> None:
    assert shown(store, AT_S).splitlines() == [
        store.uri,
        "  committed    0 clips",
        "  quarantined  0 clips",
        "  failures     0 attempts",
        "  lease        free",
        "  run          none so far",
    ]


def test_a_run_at_work_is_shown_with_its_rate_and_the_clips_in_flight(store: Store) -> None:
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, status_of())
    Lease.take(store, RUN_ID, 60, now=lambda: AT_S)
    record = record_of(store, b"mp4", CLIP_ID)
    store.put(record.key, b"mp4", "text/plain")
    store.put(record_key(CLIP_ID), record.to_json(), "text/plain")
    lines = shown(store, AT_S + 10).splitlines()
    assert lines[1] == "  committed    1 clip"
    assert lines[4].startswith(f"  lease        run {RUN_ID} on ")
    assert lines[4].endswith("; renewed 10 s ago")
    assert lines[5:] == [
        f"  run          {RUN_ID}: rendering, last heartbeat 10 s ago",
        (
            "  planned      2,000 clips, 10 of them done before; "
            "since: 20 committed, 1 quarantined, 3 attempts failed"
        ),
        "  workers      2, 1 lost so far",
        "  devices      98.1% busy",
        "  rate         120 clips an hour, about 2 h left (90 min to 3 h), after 10 min",
        "",
        "kinds of clip:",
        "  model  size                    devices   left  an hour  seconds each",
        "  wan    81 x 832x480, 8 steps         1  1,479    120.0          55.0",
        "  ltx    97 x 768x512, 30 steps        2    490",
        "",
        "in flight:",
        "  clip       id                                worker     at                    for",
        f"  spring-31  {CLIP_ID}  host-a:12  denoise, step 4 of 8  12 s",
    ]


def test_a_run_whose_workers_wait_says_for_what(store: Store) -> None:
    waiting = dataclasses.replace(status_of(), waiting_for="2 devices, held by other jobs")
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, waiting)
    assert "\n  waiting      for 2 devices, held by other jobs\n" in shown(store, AT_S + 10)


def test_a_run_says_what_it_cost(store: Store) -> None:
    parts = {"denoise": 0.75, "load": 0.2, "lost": 0.05}
    cost = RunCost.of((DeviceHours.of("wan", "cpu", parts, 2.5),), "USD")
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, dataclasses.replace(status_of(), cost=cost))
    line = "1.00 device-hours, USD 2.50, 5.0% wasted (lost 0.050 h)"
    assert f"\n  cost         {line}\n" in shown(store, AT_S + 10)


def test_a_run_whose_workers_load_says_how_far_they_are(store: Store) -> None:
    loading = (LoadingWorkers(("import", "verify"), 7, 0.4), LoadingWorkers((), 1, 0.0))
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, dataclasses.replace(status_of(), loading=loading))
    line = "7 workers (importing libraries; verifying weights, 40 %), 1 worker (starting)"
    assert f"\n  loading      {line}\n" in shown(store, AT_S + 10)


def test_committed_clips_without_an_mp4_are_counted_as_damaged_with_the_remedy(
    store: Store,
) -> None:
    for number in range(3):
        record = record_of(store, b"mp4", f"{number:032x}")
        store.put(record_key(record.clip_id), record.to_json(), "text/plain")
        if number == 0:
            store.put(record.key, b"mp4", "text/plain")
    assert shown(store, AT_S).splitlines()[1:3] == [
        "  committed    3 clips",
        (
            "  damaged: 2 clips with a record and without an MP4; "
            "render --repair renders the missing again"
        ),
    ]


def test_the_age_of_a_status_is_that_of_its_object(store: Store) -> None:
    """The clock of its driver was two days behind."""
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, status_of(at_s=AT_S - 2 * 86_400), AT_S)
    Lease.take(store, RUN_ID, 60, now=lambda: AT_S)
    assert "rendering, last heartbeat 10 s ago" in shown(store, AT_S + 10)


def test_one_failed_attempt_is_in_the_singular() -> None:
    one = dataclasses.replace(status_of(), num_failures=1)
    assert run_lines(one, lease_of(), AT_S)[1].endswith(" 1 quarantined, 1 attempt failed")


def test_a_dead_run_has_no_estimate_of_the_time_left(store: Store) -> None:
    write_run(store, RUN_ID, "run.json", {})
    write_status_at(store, status_of())
    Lease.take(store, RUN_ID, 60, now=lambda: AT_S)
    text = shown(store, AT_S + 720)
    assert "last heartbeat 12 min ago" in text
    assert "in flight at the last heartbeat:" in text
    assert " left (" not in text
    assert "lease        free, expired at 2026-01-31T12:01:00.000Z; last held by run" in text


def test_the_last_failures_are_shown_with_their_reasons_newest_first(
    store: Store, tmp_path: Path
) -> None:
    for number in range(7):
        clip_id = f"{number:032x}"
        write_failure(store, failure_of(clip_id, f"reason {number}\nand more", AT_S + number))
        os.utime(
            tmp_path / "store" / "failures" / clip_id / f"{RUN_ID}-1.json",
            (AT_S + number, AT_S + number),
        )
    write_quarantine(store, quarantine_of(f"{6:032x}"))
    lines = shown(store, AT_S).splitlines()
    assert lines[2] == f"  quarantined  1 clip; nagfarm retry {store.uri} lifts that"
    assert lines[3] == "  failures     7 attempts"
    assert lines[-6] == "last 5 of 7 failed attempts:"
    assert [line.rpartition(" ")[2] for line in lines[-5:]] == ["6", "5", "4", "3", "2"]
    assert lines[-5].endswith(f"{6:032x}  memory: OutOfMemoryError: reason 6")


def test_a_run_without_a_status_is_named(store: Store) -> None:
    write_run(store, RUN_ID, "run.json", {})
    assert f"run          {RUN_ID}, without a status so far" in shown(store, AT_S)


def test_unreadable_objects_do_not_hide_the_rest(store: Store) -> None:
    write_run(store, RUN_ID, "run.json", {})
    store.put(f"runs/{RUN_ID}/status.json", b"{", "text/plain")
    store.put(lease_key(3), b"[]", "text/plain")
    store.put(f"failures/{CLIP_ID}/run-1.json", b"{}", "text/plain")
    text = shown(store, AT_S)
    assert "committed    0 clips" in text
    for part in (
        "status.json: not valid JSON",
        "0000000003.json: expected a JSON object, got a list",
        "run-1.json: schema_version",
    ):
        assert (
            sum(part in line for line in text.splitlines() if line.startswith("cannot be read: "))
            == 1
        )


def test_the_newest_run_is_the_one_that_began_last() -> None:
    entries = [
        StoredObject("runs/a/run.json", 1, 30.0),
        StoredObject("runs/b/run.json", 1, 20.0),
        StoredObject("runs/b/summary.json", 1, 90.0),
        StoredObject("runs/c/deep/run.json", 1, 99.0),
    ]
    assert newest_run(entries) == "a"
    assert newest_run([]) is None


def test_a_table_is_neither_cut_nor_wrapped_and_takes_markup_literally() -> None:
    name = "x" * 500
    lines = table_lines(("clip", "n"), [(name, "1"), ("[red]y[/red]", "12")], numbers=("n",))
    assert lines == [
        f"clip{' ' * 496}   n",
        f"{name}   1",
        f"[red]y[/red]{' ' * 488}  12",
    ]
