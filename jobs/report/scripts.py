"""The data files of the gallery as scripts, and back; `data_format.md` describes them.

Decides how a document becomes a script that the page loads without fetching, and how rows become
columns. The files are ASCII, and no text in them can end a script.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import RecordError
from jobs.records.strict_json import load

VERSION = 1
JAVASCRIPT = "text/javascript; charset=utf-8"
STAGES = ("queue", "load", "text", "denoise", "decode", "encode", "check", "upload")
# Columns of texts that many clips share, as positions in `strings`.
INTERNED = (
    "prompt", "negative_prompt", "inputs", "model", "method", "guidance", "loras", "sound",
    "run_id", "worker", "device", "host", "failure_class", "error_type", "message",
)  # fmt: skip
PLAIN = (
    "id", "state", "name", "names", "seed", "steps", "fps", "num_frames", "width", "height", "key",
    "poster", "thumbnail", "committed_at", "failed_at", "attempts", "num_failures",
    "num_devices", "busy_s", "idle_s", "peak_memory_bytes", "num_bytes", "seen",
)  # fmt: skip
_CALL = re.compile(rb"nagfarm\.([a-z]+)\((?:([0-9]+),)?(\{.*\})\);\n", re.DOTALL)


def script(name: str, document: Mapping[str, Any], number: int | None = None) -> bytes:
    """Return a data file: the call of one function of the page.

    Args:
        name: index, part or details.
        number: number of the part.
    """
    text = json.dumps(document, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    before = "" if number is None else f"{number},"
    return f"nagfarm.{name}({before}{text});\n".encode("ascii")


def document_of(name: str, content: bytes) -> dict[str, Any]:
    """Return the document of a data file. Raises RecordError for anything but such a file."""
    found = _CALL.fullmatch(content)
    if found is None or found[1].decode() != name:
        raise RecordError(f"expected a data file of the gallery that calls nagfarm.{name}")
    return load(found[3])


def digest_of(content: bytes) -> str:
    """Return the part of a file's name that its content decides."""
    return hashlib.sha256(content).hexdigest()[:16]


def part_document(rows: Sequence[Mapping[str, Any]], links: object) -> dict[str, Any]:
    """Return rows column by column; a column without any value is left out."""
    positions: dict[str, int] = {}

    def interned(text: str | None) -> int | None:
        return None if text is None else positions.setdefault(text, len(positions))

    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in PLAIN}
    columns |= {name: [interned(row[name]) for row in rows] for name in INTERNED}
    columns["meta"] = [
        {note: interned(text) for note, text in row["meta"].items()} or None for row in rows
    ]
    stages = {stage: [row["stages"].get(stage) for row in rows] for stage in STAGES}
    columns = {name: values for name, values in columns.items() if _has_value(values)}
    columns["stages"] = {name: values for name, values in stages.items() if _has_value(values)}
    figures = sorted({name for row in rows for name in row["scores"]})
    if figures:
        columns["scores"] = {name: [row["scores"].get(name) for row in rows] for name in figures}
    return {"strings": list(positions), "columns": columns, "links": links}


def rows_of(part: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of a part. Raises RecordError if it does not have the form of one."""
    try:
        columns, strings = part["columns"], part["strings"]
        num_rows = len(columns.get("id", ()))
        if not all(isinstance(one, str) for one in (*strings, *columns.get("id", ()))):
            raise TypeError("a text is none")

        def value(name: str, at: int) -> Any:
            return columns[name][at] if name in columns else None

        def text(position: int | None) -> str | None:
            return None if position is None else strings[position]

        return [
            {name: value(name, at) for name in PLAIN}
            | {name: text(value(name, at)) for name in INTERNED}
            | {"meta": {note: text(found) for note, found in (value("meta", at) or {}).items()}}
            | {"stages": _numbers(columns["stages"], at)}
            | {"scores": _numbers(columns.get("scores", {}), at)}
            for at in range(num_rows)
        ]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise RecordError(f"not a part of the gallery: {type(error).__name__}: {error}") from error


def _has_value(values: Sequence[object]) -> bool:
    return any(value is not None for value in values)


def _numbers(columns: Mapping[str, Sequence[float | None]], at: int) -> dict[str, float]:
    return {name: value for name in columns if (value := columns[name][at]) is not None}
