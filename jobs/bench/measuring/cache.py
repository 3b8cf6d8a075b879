"""A cache of judgements in a file of JSON lines, each with a key and an entry.

Entries are appended as they come, so that an interrupted run keeps them. An incomplete last line is
dropped.
"""

import json
from pathlib import Path
from typing import Any


class LineCache:
    """Entries by key, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entries: dict[str, Any] = {}
        content = path.read_bytes() if path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        for line in whole.splitlines():
            key, entry = json.loads(line)
            self._entries[key] = entry
        path.parent.mkdir(parents=True, exist_ok=True)
        if whole != content:
            path.write_bytes(whole)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def add(self, key: str, entry: Any) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps([key, entry]) + "\n")
        self._entries[key] = json.loads(json.dumps(entry))
