"""The encoding of a text file, as its byte order mark names it, and its lines.

A file is UTF-8, with or without a mark, or UTF-16 with one: Excel's "Unicode text" and the output
of PowerShell. Nothing is guessed from the content.
"""

import codecs
from array import array
from typing import BinaryIO

UTF_8 = "UTF-8"
BOM = "\ufeff"
_UTF_16 = {codecs.BOM_UTF16_LE: "UTF-16-LE", codecs.BOM_UTF16_BE: "UTF-16-BE"}


def encoding_of(head: bytes) -> str:
    """Return the encoding of a file that begins with `head`, at least two bytes of it."""
    return _UTF_16.get(head[:2], UTF_8)


def detect_encoding(stream: BinaryIO) -> str:
    """Return the encoding of an open file and go back to its beginning."""
    encoding = encoding_of(stream.read(2))
    stream.seek(0)
    return encoding


def read_line(stream: BinaryIO, encoding: str, max_bytes: int) -> bytes:
    """Return the next line with its line feed, or its first `max_bytes`; none at the end."""
    if encoding == UTF_8:
        return stream.readline(max_bytes)
    line, feed = bytearray(), "\n".encode(encoding)
    while len(line) < max_bytes:
        part = stream.readline(max_bytes - len(line))
        line += part
        if len(line) % 2 and len(line) < max_bytes:  # the byte 0x0A is half a character
            line += stream.read(1)
        if not part or line.endswith(feed):
            break
    return bytes(line)


class LineTable:
    """The lines of a text that are not blank, held as one block of bytes and two numbers a line."""

    def __init__(self, text: str) -> None:
        self._data = text.encode()
        self._starts = array("Q")
        self._numbers = array("Q")
        start, number = 0, 0
        while start < len(self._data):
            number += 1
            end = self._end_of(start)
            if self._data[start:end].strip():
                self._starts.append(start)
                self._numbers.append(number)
            start = end + 1

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> str:
        start = self._starts[index]
        return self._data[start : self._end_of(start)].decode().removesuffix("\r")

    def line_number(self, index: int) -> int:
        """Return the line number in the file, from 1, of entry `index`."""
        return self._numbers[index]

    def _end_of(self, start: int) -> int:
        end = self._data.find(b"\n", start)
        return len(self._data) if end < 0 else end
