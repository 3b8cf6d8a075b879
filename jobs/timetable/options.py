"""The options about times: the day of an output, the wait for another driver, the deadline.

`nagfarm plan` and `render` have them beside their own. Loads without torch.
"""

import argparse
import datetime as dates
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from jobs.errors import RowValueError
from jobs.text import shown
from jobs.timetable.clock_times import MAX_DEADLINE, WrittenDeadline, Zone, time_of_day, zone_of
from jobs.timetable.dated_output import Calendar, date_of
from jobs.timetable.durations import FORM, duration_of

REPORT_EVERY_S, MIN_REPORT_S = 60.0, 1.0
T = TypeVar("T")


@dataclass(frozen=True)
class CalendarOptions:
    """The options that decide the day of an output. None leaves the choice to the manifest."""

    time_zone: Zone | None
    date: dates.date | None
    day_starts: dates.time | None

    def calendar(self, of_manifest: Calendar) -> Calendar:
        """Return the calendar of a manifest, as far as these options do not replace it."""
        return replace(
            of_manifest,
            zone=self.time_zone or of_manifest.zone,
            day_starts=of_manifest.day_starts if self.day_starts is None else self.day_starts,
            given=self.date,
        )


def add_calendar_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of these options to a command's parser."""
    parser.add_argument(
        "--time-zone",
        type=_zone,
        metavar="ZONE",
        help="zone of {date}, {week} and --deadline, such as Europe/Berlin; wins over the "
        "manifest's time_zone (default: UTC)",
    )
    parser.add_argument(
        "--day-starts",
        type=_reader(time_of_day, "a time of the day such as 12:00"),
        metavar="HH:MM",
        help="time at which the day of {date} begins, such as 12:00 for nights; wins over the "
        "manifest's day_starts (default: 00:00)",
    )
    parser.add_argument(
        "--date",
        type=_reader(date_of, "a date such as 2026-01-31"),
        metavar="YYYY-MM-DD",
        help="day of {date} and {week}, to go on with an earlier output (default: today)",
    )


def add_deadline_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--deadline",
        type=_reader(
            WrittenDeadline.read,
            f"a time of the day such as 08:00, or a duration of at most {MAX_DEADLINE.days}d",
        ),
        metavar="TIME",
        help="end by then: at the next 08:00 in the time zone, or after a duration such as 2h30m "
        "from now. No clip is started that cannot finish; exit code 5 if clips are left",
    )


def add_wait_argument(group: "argparse._MutuallyExclusiveGroup") -> None:
    group.add_argument(
        "--wait",
        nargs="?",
        const=math.inf,
        type=_duration_or_setting("--wait"),
        metavar="DURATION",
        help="wait while another driver holds the output, without end or for at most DURATION, "
        "such as 30m, instead of exit code 75; give it behind MANIFEST",
    )


def add_report_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--report",
        nargs="?",
        const=REPORT_EVERY_S,
        type=_duration_or_setting("--report", MIN_REPORT_S),
        metavar="INTERVAL",
        help="bring the gallery in report/ of the output up to date at this interval, and at the "
        "end of the run (default 1m; less often if a refresh takes more than a tenth of it); pages "
        "that are open show the new clips; give it behind MANIFEST",
    )


def _reader(read: Callable[[str], T | None], expected: str) -> Callable[[str], T]:
    """Return a reader of an argument that refuses a text from which `read` makes nothing."""

    def read_or_refuse(written: str) -> T:
        found = read(written)
        if found is None:
            raise argparse.ArgumentTypeError(f"expected {expected}, got {shown(written)}")
        return found

    return read_or_refuse


def _zone(written: str) -> Zone:
    try:
        return zone_of(written)
    except RowValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _duration_or_setting(option: str, least_s: float = 0.0) -> Callable[[str], float | str]:
    """Return a reader of a duration, in seconds, or of a setting such as `workers.count=2`."""

    def read(written: str) -> float | str:
        if "=" in written:
            return written
        found = duration_of(written)
        if found is None or found < least_s:
            least = f" of at least {least_s:g} s" if least_s else ""
            raise argparse.ArgumentTypeError(
                f"expected {FORM}{least}, got {shown(written)}; without a duration, write {option} "
                "at the end"
            )
        return found

    return read
