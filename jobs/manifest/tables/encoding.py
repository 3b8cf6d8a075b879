"""The encoding of a text file, as its byte order mark names it, and its lines.

A file is UTF-8, with or without a mark, or UTF-16 with one: Excel's "Unicode text" and the output
of PowerShell. Nothing is guessed from the content.
"""

import codecs
from array import array
from collections.abc import Callable, Iterator
from typing import BinaryIO

BLOCK_BYTES = 64 * 1024
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


def decoded_blocks(
    stream: BinaryIO, encoding: str, take: Callable[[bytes], object], num_bytes: int
) -> Iterator[tuple[str, int | None]]:
    """Yield the text of an open file in parts, and with the last one the first wrong byte, if any.

    Args:
        take: is called with all bytes that are read.
        num_bytes: length of the part of the file that is read.
    """
    decoder = codecs.getincrementaldecoder(encoding)()
    is_at_end = False
    while not is_at_end:
        block = stream.read(min(BLOCK_BYTES, num_bytes))
        take(block)
        num_bytes -= len(block)
        is_at_end = not block
        try:
            text = decoder.decode(block, final=is_at_end)
        except UnicodeDecodeError as error:
            yield error.object[: error.start].decode(encoding), error.object[error.start]
            return
        yield text, None


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
