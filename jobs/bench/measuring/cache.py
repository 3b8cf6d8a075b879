"""A cache of judgements in a file of JSON lines, each with a key and an entry.

Entries are appended as they come, so that an interrupted run keeps them. A line that is incomplete
or holds something else is dropped, so that its clip is judged again. A link in the place of the
file is refused, since others may write to the folder of a report.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from jobs.bench.design.options import REPORT
from jobs.whole_files import writing_for, written_for
from pipelines.regular_files import refuse_special

FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def _any(_key: str, _entry: Any) -> bool:
    return True


class LineCache:
    """Entries by key, kept in a file.

    Args:
        is_entry: True for a key and a value of the file that may be used.

    Raises:
        UnwritableError: the file or its folder cannot be read and written.
    """

    def __init__(self, path: Path, is_entry: Callable[[str, Any], bool] = _any) -> None:
        self._path = path
        self._entries: dict[str, Any] = {}
        with writing_for(REPORT, path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(_open(path), "rb") as file:
                content = file.read()
        kept: list[bytes] = []
        for line in content.splitlines(keepends=True):
            found = _entry_of(line) if line.endswith(b"\n") else None
            if found is not None and is_entry(*found):
                self._entries[found[0]] = found[1]
                kept.append(line)
        if (whole := b"".join(kept)) != content:
            with written_for(REPORT, path) as unfinished:
                unfinished.write_bytes(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def add(self, key: str, entry: Any) -> None:
        """Keep an entry. Raises UnwritableError if the file cannot be written."""
        with writing_for(REPORT, self._path), os.fdopen(_open(self._path), "ab") as file:
            file.write(f"{json.dumps([key, entry])}\n".encode())
        self._entries[key] = json.loads(json.dumps(entry))


def _open(path: Path) -> int:
    descriptor = os.open(path, FLAGS, 0o666)
    try:
        refuse_special(os.fstat(descriptor).st_mode, path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _entry_of(line: bytes) -> tuple[str, Any] | None:
    """Return the key and the entry of a line; None if it holds something else."""
    try:
        found: object = json.loads(line)
    except (ValueError, RecursionError):
        return None
    match found:
        case [str(key), entry]:
            return key, cast("Any", entry)
        case _:
            return None
