"""The parts of a gallery: which clip is in which, and how a part is written again.

Decides that a clip stays in its part, so that a refresh writes the parts with changed clips and
new parts, and no others. Memory holds the id and the fingerprint of each clip, and the rows of one
part.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.errors import RecordError
from jobs.report.rows import Entry
from jobs.report.scripts import part_document, rows_of
from jobs.report.target import Target

CLIPS_A_PART = 250
MakeLinks = Callable[[Sequence[str]], Any]  # presigned links of keys; None for plain ones


@dataclass(frozen=True)
class Part:
    """One part as the index names it.

    Args:
        file, details: names of its two files.
        seen: fingerprint of each clip, by id, in the order of the rows.
        counts: clips by state.
        links_expire_at: end of its presigned links; None without them.
    """

    file: str
    details: str
    seen: Mapping[str, str]
    counts: Counter[str]
    links_expire_at: str | None = None

    @property
    def num_clips(self) -> int:
        return len(self.seen)


def read_part(target: Target, file: str, details: str) -> Part:
    """Read what a refresh has to know of a part.

    Raises:
        ObjectMissingError, RecordError: the file is gone or not whole.
    """
    document = target.read_data("part", file)
    rows = rows_of(document)
    return _part_of(rows, file, details, document.get("links"))


def write_part(target: Target, number: int, entries: Sequence[Entry], links: MakeLinks) -> Part:
    """Write the two files of a part."""
    rows = [entry.row for entry in entries]
    details = {entry.row["id"]: entry.details for entry in entries}
    signed = links([key for entry in entries for key in _keys(entry)])
    details_name = target.write_data("details", details, number)
    name = target.write_data("part", part_document(rows, signed), number)
    return _part_of(rows, name, details_name, signed)


def read_entries(target: Target, part: Part) -> dict[str, Entry]:
    """Return the clips of a part, by id, in their order.

    Raises:
        ObjectMissingError, RecordError: a file is gone or not whole.
    """
    rows = rows_of(target.read_data("part", part.file))
    details = target.read_data("details", part.details)
    entries = {row["id"]: Entry(row, details.get(row["id"], {})) for row in rows}
    try:
        for entry in entries.values():
            "".join(_keys(entry))
    except (KeyError, TypeError) as error:
        raise RecordError(f"{part.details} lacks a clip of {part.file}") from error
    return entries


def _part_of(rows: Sequence[Mapping[str, Any]], file: str, details: str, links: Any) -> Part:
    seen = {str(row["id"]): str(row["seen"]) for row in rows}
    expire_at = links.get("expire_at") if isinstance(links, dict) else None
    expire_at = expire_at if isinstance(expire_at, str) else None
    return Part(file, details, seen, Counter(str(row["state"]) for row in rows), expire_at)


def _keys(entry: Entry) -> list[str]:
    """Return the keys of the objects that the page shows of a clip."""
    keys = [entry.row[name] for name in ("key", "poster", "thumbnail")]
    keys += [failure["clip"] for failure in entry.details["failures"]]
    return [key for key in keys if key is not None]
