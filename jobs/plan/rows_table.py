"""The rows of a plan as CSV: row, name, clip_id, state, key."""

import csv
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from jobs.errors import RefusedError
from jobs.plan.plan import Plan

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
        partial = path.with_name(f".{secrets.token_hex(8)}.partial")
        try:
            with partial.open("x", encoding="utf-8", newline="") as file:
                _write(plan, mp4_keys, file)
            partial.replace(path)
        finally:
            with suppress(FileNotFoundError):
                partial.unlink()
    except OSError as error:
        raise RefusedError(f"--rows: cannot write {path}: {error.strerror}") from error


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
