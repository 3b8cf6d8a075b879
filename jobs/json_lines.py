"""The JSON format of a log: one object a line, whatever a program and its libraries print.

Decides the shape of a line, and puts a stream that writes such lines above `sys.stdout` and
`sys.stderr`. What other code prints becomes entries of the event "output", so that every line which
Python writes is JSON: `print`, rich, logging, warnings and tracebacks of libraries.
"""

import atexit
import io
import json
import math
import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO, cast

from jobs.escaping import MAX_LINE, plain_document, plain_line, shortened

Level = Literal["info", "warning", "error"]
OUTPUT = "output"  # the event of a line that other code printed
MAX_TRACEBACK = 10_000  # characters; log collectors cut lines of more than some 16 kB
COLORS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def json_line(event: str, message: str, level: Level, facts: Mapping[str, Any]) -> str:
    """Return one line of a log with the time of this moment. Facts that are None are left out.

    Args:
        facts: further keys; texts among them are cut like the message, a traceback later.
    """
    entry = {
        "time": datetime.fromtimestamp(time.time(), UTC)
        .isoformat(timespec="milliseconds")
        .replace("+00:00", "Z"),
        "level": level,
        "event": event,
        "message": shortened(message),
        **{key: _cut(key, value) for key, value in facts.items() if value is not None},
    }
    return plain_document(json.dumps(entry, ensure_ascii=False))


def _cut(key: str, value: Any) -> Any:
    match value:
        case float():
            return round(value, 3) if math.isfinite(value) else None  # JSON has no other number
        case str():
            return shortened(value, MAX_TRACEBACK if key == "traceback" else MAX_LINE)
        case Mapping():
            entries = cast("Mapping[str, Any]", value)
            return {inner: _cut(inner, one) for inner, one in entries.items()}
        case _:
            return value


class JsonLines(io.TextIOBase):
    """A stream that writes each line as a JSON object.

    Args:
        stream: gets the lines.
        name: the name of the stream in entries of the event "output".
        common: keys of every line, such as the run; shared by the streams of a process.
    """

    encoding = "utf-8"  # libraries ask for it

    def __init__(self, stream: TextIO, name: str, common: dict[str, str]) -> None:
        self.stream = stream
        self.common = common
        self._name = name
        self._begun: dict[int, str] = {}  # lines without an end yet, by thread
        self._lock = threading.RLock()  # a long line takes several system calls

    def write(self, text: str, /) -> int:
        """Write the lines that end in a text of other code, and keep the rest."""
        thread = threading.get_ident()
        *lines, rest = (self._begun.pop(thread, "") + text).split("\n")
        for line in lines:
            self._write_output(line)
        if rest:
            self._begun[thread] = shortened(rest)
        return len(text)

    def write_entry(self, event: str, message: str, level: Level = "info", **facts: Any) -> None:
        """Write one line; one without any message is left out."""
        if message.strip():
            self.write_document(json_line(event, message, level, {**self.common, **facts}))

    def write_document(self, text: str) -> None:
        """Write a line, or a document of several, that is JSON already."""
        with self._lock:
            self.stream.write(f"{text}\n")

    def end_lines(self) -> None:
        """Write the lines that have begun, at the end of the process."""
        for thread in list(self._begun):
            self._write_output(self._begun.pop(thread))

    def flush(self) -> None:
        self.stream.flush()

    def fileno(self) -> int:
        return self.stream.fileno()

    def isatty(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def _write_output(self, line: str) -> None:
        shown = line.rstrip("\r").rpartition("\r")[2]  # the last state of a bar
        self.write_entry(OUTPUT, COLORS.sub("", shown), stream=self._name)


def write_json_lines() -> None:
    """Let this process write its stdout and stderr as JSON lines from now on."""
    os.environ["TTY_COMPATIBLE"] = "0"  # rich draws no bar then, even with FORCE_COLOR
    common: dict[str, str] = {}
    for name in ("stdout", "stderr"):
        stream = inner_stream(getattr(sys, name))
        if isinstance(stream, io.TextIOWrapper) and stream.encoding.lower() != JsonLines.encoding:
            # in any other encoding, JSON would get escapes that are Python's
            stream.reconfigure(encoding=JsonLines.encoding, errors="backslashreplace")
        lines = JsonLines(stream, name, common)
        setattr(sys, name, lines)
        atexit.register(lines.end_lines)


def inner_stream(stream: TextIO) -> TextIO:
    """Return the stream below JSON lines, or the stream itself."""
    return stream.stream if isinstance(stream, JsonLines) else stream


def error_line(event: str, message: str, *, stamp: str = "", **facts: Any) -> str:
    """Return the last line of a process, safe to print, in the format of its stderr.

    Args:
        stamp: time and blank before a line of text; JSON has a time of its own.
    """
    if isinstance(sys.stderr, JsonLines):
        return json_line(event, message, "error", {**sys.stderr.common, **facts})
    return plain_line(f"{stamp}nagfarm: {message}")
