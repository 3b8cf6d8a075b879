"""Outputs that are named after a day: {date} and {week} in their URI, resolved once a command.

Decides which day a moment belongs to. Loads without torch.
"""

import re
from dataclasses import dataclass
from datetime import date, time, timedelta

from jobs.errors import RowValueError
from jobs.timetable.clock_times import UTC, Zone

_PLACEHOLDER = re.compile(r"\{([^{}]{0,40})\}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class OutputDay:
    """The day after which an output is named, as the documents of a run keep it.

    Args:
        written: URI with its placeholders.
        date: the day, such as 2026-01-31.
        time_zone: name of the zone of the day.
    """

    written: str
    date: str
    time_zone: str

    def __str__(self) -> str:
        return f"{self.date} in {self.time_zone}, of {self.written}"


@dataclass(frozen=True)
class NamedOutput:
    """An output's URI. `day` is None if the URI had no placeholder."""

    uri: str
    day: OutputDay | None


@dataclass(frozen=True)
class Calendar:
    """The rule by which a moment belongs to a day.

    Args:
        zone: zone of the day.
        day_starts: time of the day at which a day begins, for nights that go past midnight.
        given: day that the user named, in place of that of the moment.
    """

    zone: Zone = UTC
    day_starts: time = time()
    given: date | None = None

    def day(self, moment: float) -> date:
        """Return the day of a moment."""
        if self.given is not None:
            return self.given
        local = self.zone.local(moment)
        is_before = local.time() < self.day_starts
        return local.date() - timedelta(days=is_before)

    def name(self, written: str, moment: float) -> NamedOutput:
        """Resolve the placeholders of an output.

        Raises:
            RowValueError: a placeholder is unknown, or a brace stands alone.
        """
        day = self.day(moment)
        year, week, _ = day.isocalendar()  # the week of ISO 8601, with a year of its own
        values = {"date": day.isoformat(), "week": f"{year:04}-W{week:02}"}

        def value(found: re.Match[str]) -> str:
            if found[1] not in values:
                raise RowValueError(
                    f"output: unknown placeholder {found[0]}; expected {{date}} or {{week}}"
                )
            return values[found[1]]

        uri, num_found = _PLACEHOLDER.subn(value, written)
        if "{" in uri or "}" in uri:
            raise RowValueError(
                "output: a brace stands alone; expected {date} or {week}, and %7B and %7D in "
                "file:/// for braces themselves"
            )
        if not num_found:
            return NamedOutput(written, None)
        return NamedOutput(uri, OutputDay(written, day.isoformat(), self.zone.name))


MIDNIGHT_IN_UTC = Calendar()


def date_of(written: str) -> date | None:
    """Return a date such as 2026-01-31; None if the text is none."""
    try:
        return date.fromisoformat(written) if _DATE.fullmatch(written) else None
    except ValueError:
        return None
