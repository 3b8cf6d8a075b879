"""Time zones by name, times of the day, and the moment of a run's deadline.

All moments are seconds since 1970 by this machine's clock, which callers pass in. Loads without
torch.
"""

import datetime as dates
import re
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from jobs.errors import RowValueError
from jobs.text import nearest, shown
from jobs.timetable.durations import duration_of

_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
MAX_ZONE_CHARACTERS = 64
MAX_DEADLINE = timedelta(days=366)  # a later one is a slip, and soon beyond the calendar


@dataclass(frozen=True)
class Zone:
    """A time zone under the name that the user gave it."""

    name: str
    info: tzinfo

    def local(self, moment: float) -> datetime:
        return datetime.fromtimestamp(moment, self.info)


UTC = Zone("UTC", dates.UTC)  # needs no database of zones


def zone_of(name: str) -> Zone:
    """Return a time zone of the IANA database.

    Raises:
        RowValueError: the database of this machine has no such zone.
    """
    if name == UTC.name:
        return UTC
    try:
        if len(name) <= MAX_ZONE_CHARACTERS:
            return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder of the database
        pass
    known = available_timezones()
    if not known:
        raise RowValueError(
            f"the time zone {shown(name)} is unknown, since this machine has no database of time "
            "zones; install the package tzdata"
        )
    candidate = nearest(name, known)
    remedy = f"did you mean {candidate}?" if candidate else "expected a name such as Europe/Berlin"
    raise RowValueError(f"unknown time zone {shown(name)}; {remedy}")


def time_of_day(written: str) -> time | None:
    """Return a time of the day such as 08:00; None if the text is none."""
    found = _TIME_OF_DAY.fullmatch(written)
    return time(int(found[1]), int(found[2])) if found else None


def next_occurrence(of: time, zone: Zone, now: float) -> float:
    """Return the first moment after `now` at which the clocks of a zone show a time of the day.

    On a day that leaves that time out, as clocks go forward, it is as long after midnight as on
    other days. If a day has it twice, both count.
    """
    today = zone.local(now).date()
    moments = (
        moment
        for days in range(-1, 4)  # a zone that changes its side of the date line leaves a day out
        for moment in _moments(today + timedelta(days), of, zone)
    )
    return min(moment for moment in moments if moment > now)


def _moments(day: date, of: time, zone: Zone) -> set[float]:
    first = datetime.combine(day, of, zone.info)
    second = first.replace(fold=1)
    return {first.timestamp(), max(first.timestamp(), second.timestamp())}


@dataclass(frozen=True)
class Deadline:
    """The moment at which a run must have ended.

    Args:
        at: the moment.
        zone: the zone in which people are shown it.
    """

    at: float
    zone: Zone

    def __str__(self) -> str:
        local = self.zone.local(self.at).replace(microsecond=0)
        return f"{local.isoformat()} ({self.zone.name})"


@dataclass(frozen=True)
class WrittenDeadline:
    """A deadline as the command line gives it: a time of the day, or seconds from the start."""

    due: time | float

    @classmethod
    def read(cls, written: str) -> "WrittenDeadline | None":
        """Read a deadline; return None if the text is none, or one after `MAX_DEADLINE`."""
        found = time_of_day(written)
        if found is not None:
            return cls(found)
        duration_s = duration_of(written) or 0.0
        return cls(duration_s) if 0 < duration_s <= MAX_DEADLINE.total_seconds() else None

    def after(self, started: float, zone: Zone) -> Deadline:
        """Return the deadline of a command.

        Args:
            started: moment at which the command began.
            zone: zone of a time of the day.
        """
        if isinstance(self.due, time):
            return Deadline(next_occurrence(self.due, zone, started), zone)
        return Deadline(started + self.due, zone)
