"""The rows of a plan as CSV: row, name, clip_id, state, key."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from jobs.errors import RefusedError
from jobs.plan.plan import Plan
from jobs.whole_files import unwritable, written_whole

COLUMNS = ("row", "name", "clip_id", "state", "key")
HEADER = ",".join(COLUMNS) + "\n"


def write_rows(plan: Plan, mp4_keys: Mapping[str, str], path: Path) -> None:
    """Write the rows to a file, which appears whole or not at all and replaces an older table.

    Args:
        mp4_keys: key of the MP4 of each committed clip that has one.

    Raises:
        RefusedError: the file cannot be written, or it holds something else, such as the manifest.
        ManifestError: the manifest was rewritten since the plan was made.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe or a device; a folder is refused
            with path.open("w", encoding="utf-8", newline="") as file:
                _write(plan, mp4_keys, file)
            return
        if path.exists() and not _is_table(path):
            raise RefusedError(
                f"--rows: {path} holds something else than rows of a plan; name another file"
            )
        with (
            written_whole(path) as unfinished,
            unfinished.open("w", encoding="utf-8", newline="") as file,
        ):
            _write(plan, mp4_keys, file)
    except OSError as error:
        raise unwritable("--rows", path, error) from error


def _is_table(path: Path) -> bool:
    """Return True for a file that an earlier plan wrote, or an empty one."""
    with path.open("rb") as file:
        return file.read(len(HEADER)) in (HEADER.encode(), b"")


def _write(plan: Plan, mp4_keys: Mapping[str, str], file: TextIO) -> None:
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for row, state in plan.rows():
        clip_id = row.clip.clip_id
        key = mp4_keys.get(clip_id, "") if state == "done" else ""
        table.writerow((row.number, row.clip.name, clip_id, state, key))
