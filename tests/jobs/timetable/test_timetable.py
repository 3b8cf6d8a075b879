"""Times as people write them: durations, zones, times of the day, days of outputs."""

import re
from datetime import UTC as UTC_INFO
from datetime import date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.errors import RowValueError
from jobs.timetable.clock_times import (
    UTC,
    Deadline,
    WrittenDeadline,
    Zone,
    next_occurrence,
    time_of_day,
    zone_of,
)
from jobs.timetable.dated_output import Calendar, OutputDay, date_of
from jobs.timetable.durations import duration_of

ZONES = [
    UTC,
    *map(zone_of, ("Europe/Berlin", "America/St_Johns", "Australia/Lord_Howe", "Pacific/Apia")),
]
BERLIN = ZONES[1]
MOMENTS = st.floats(0, 2_000_000_000)  # 1970 to 2033
TIMES = st.builds(time, st.integers(0, 23), st.integers(0, 59))


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400), ("90m", 5400), ("1.5d", 129_600), ("0s", 0), ("2h30m", 9000),
        ("1d1h1m1s", 90_061), ("30", None), ("h", None), ("", None), ("30m2h", None),
        ("1h1h", None), ("-1h", None), ("1 h", None), ("1e3s", None), ("٣h", None),
        ("9" * 400 + "d", None),
    ],
)  # fmt: skip
def test_durations_are_read(text: str, seconds: float | None) -> None:
    assert duration_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "read"),
    [("08:00", time(8)), ("8:05", time(8, 5)), ("23:59", time(23, 59)), ("24:00", None),
     ("08:60", None), ("0800", None), ("08:00:00", None), ("", None)],
)  # fmt: skip
def test_times_of_the_day_are_read(text: str, read: time | None) -> None:
    assert time_of_day(text) == read


@pytest.mark.parametrize(
    "name", ["Europe/Berln", "Europe", "../UTC", "/etc/passwd", "x\0", "", "x" * 1000]
)
def test_an_unknown_zone_is_refused_with_a_name_that_works(name: str) -> None:
    with pytest.raises(RowValueError, match="did you mean|such as Europe/Berlin"):
        zone_of(name)


@given(of=TIMES, now=MOMENTS, zone=st.sampled_from(ZONES))
def test_the_next_occurrence_is_the_first_moment_at_which_the_clock_shows_the_time(
    of: time, now: float, zone: Zone
) -> None:
    found = next_occurrence(of, zone, now)
    assert now < found
    assert found - now <= 50 * 3600, "a day may be left out where a zone changes its date"
    # no minute before it shows that time
    first = now - now % 60 + 60
    shown = zone.local(found)
    if shown.time() == of:
        for minutes in range(int((found - first) // 60)):
            assert zone.local(first + 60 * minutes).time() != of
    else:  # the clocks went forward over that time
        assert zone.local(found - 3 * 3600).utcoffset() != shown.utcoffset()


@pytest.mark.parametrize(
    ("now", "of", "found"),
    [
        ("2026-01-31T22:00+01:00", "08:00", "2026-02-01T08:00+01:00"),
        ("2026-01-31T07:59+01:00", "08:00", "2026-01-31T08:00+01:00"),
        ("2026-01-31T08:00+01:00", "08:00", "2026-02-01T08:00+01:00"),
        ("2026-03-28T22:00+01:00", "08:00", "2026-03-29T08:00+02:00"),  # nine hours later
        ("2026-03-28T22:00+01:00", "02:30", "2026-03-29T03:30+02:00"),  # a day without 02:30
        ("2026-10-24T22:00+02:00", "02:30", "2026-10-25T02:30+02:00"),  # there are two
        ("2026-10-25T02:30+02:00", "02:30", "2026-10-25T02:30+01:00"),
        ("2026-10-25T02:30+01:00", "02:30", "2026-10-26T02:30+01:00"),
    ],
)
def test_a_deadline_follows_the_clocks_of_its_zone(now: str, of: str, found: str) -> None:
    written = WrittenDeadline.read(of)
    assert written is not None
    assert written.after(moment(now), BERLIN) == Deadline(moment(found), BERLIN)


def test_a_deadline_of_a_duration_counts_from_the_start_and_is_shown_in_its_zone() -> None:
    written = WrittenDeadline.read("2h30m")
    assert written is not None
    deadline = written.after(moment("2026-01-31T22:00+01:00"), BERLIN)
    assert str(deadline) == "2026-02-01T00:30:00+01:00 (Europe/Berlin)"
    assert WrittenDeadline.read("soon") is None


def test_a_deadline_lies_ahead_and_within_the_calendar() -> None:
    for text in ("0s", "367d", "9999999d", "999999999d"):
        assert WrittenDeadline.read(text) is None
    latest = WrittenDeadline.read("366d")
    assert latest is not None
    assert str(latest.after(moment("2026-01-31T22:00Z"), UTC)).startswith("2027-02-01T22:00:00")


@pytest.mark.parametrize(
    ("now", "day_starts", "name"),
    [
        ("2026-01-31T22:59Z", "00:00", "2026-01-31/2026-W05"),
        ("2026-01-31T23:00Z", "00:00", "2026-02-01/2026-W05"),  # midnight in Berlin
        ("2026-02-01T10:59Z", "12:00", "2026-01-31/2026-W05"),  # the night goes on until noon
        ("2026-02-01T11:00Z", "12:00", "2026-02-01/2026-W05"),
        ("2027-01-03T11:00Z", "00:00", "2027-01-03/2026-W53"),  # ISO's week has its own year
    ],
)
def test_an_output_is_named_after_the_day_in_its_zone(now: str, day_starts: str, name: str) -> None:
    starts = time_of_day(day_starts)
    assert starts is not None
    written = "s3://renders/{date}/{week}"
    named = Calendar(BERLIN, starts).name(written, moment(now.replace("Z", "+00:00")))
    assert named.uri == f"s3://renders/{name}"
    assert named.day == OutputDay(written, name.partition("/")[0], "Europe/Berlin")


def test_a_date_that_the_user_names_stands_whatever_the_time_is() -> None:
    calendar = Calendar(BERLIN, time(12), date(2025, 12, 31))
    assert calendar.name("./{date}-{week}", 0.0).uri == "./2025-12-31-2026-W01"


def test_an_output_without_placeholders_is_not_named_after_a_day() -> None:
    named = Calendar().name("s3://renders/spring", 0.0)
    assert (named.uri, named.day) == ("s3://renders/spring", None)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("s3://renders/{day}", "unknown placeholder {day}; expected {date} or {week}"),
        ("s3://renders/{}", "unknown placeholder {}; expected"),
        ("s3://renders/{date", "a brace stands alone"),
        ("s3://renders/{{date}}", "a brace stands alone"),
        ("s3://renders/{" + "x" * 100 + "}", "a brace stands alone"),
    ],
)
def test_an_unknown_placeholder_is_refused(written: str, message: str) -> None:
    with pytest.raises(RowValueError, match=re.escape(message)):
        Calendar().name(written, 0.0)


@given(now=MOMENTS, zone=st.sampled_from(ZONES), starts=TIMES)
def test_the_day_of_a_moment_began_at_most_some_hours_more_than_a_day_ago(
    now: float, zone: Zone, starts: time
) -> None:
    day = Calendar(zone, starts).day(now)
    began = datetime.combine(day, starts, UTC_INFO)
    local = zone.local(now).replace(tzinfo=UTC_INFO)
    assert timedelta() <= local - began < timedelta(days=1)


def test_dates_are_read() -> None:
    assert date_of("2026-01-31") == date(2026, 1, 31)
    for wrong in ("2026-02-30", "20260131", "2026-W05-6", "yesterday", "", "2026-1-31"):
        assert date_of(wrong) is None
