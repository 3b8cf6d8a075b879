"""The boxes of an MP4: proof that the file is whole, and its tracks.

Reads the structure alone; `decode_check` decodes the content.

Source: ISO/IEC 14496-12, 4.2: a box is its length in four bytes, its type in four, its content.
"""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from jobs.errors import CheckError

MAX_BOXES = 100_000  # at the top level; a fragmented MP4 has two for each fragment
MAX_INDEX_BYTES = 64_000_000  # `moov` of an hour has about 5 MB
_PATH_OF_FORMATS = (b"minf", b"stbl", b"stsd")


@dataclass(frozen=True)
class Track:
    """One track of an MP4.

    Args:
        kind: its handler: `vide`, `soun`, or another.
        codec: code of its format, such as `avc1` or `mp4a`.
        timescale: units of its times in a second; of sound, the sample rate.
        channels: channels of sound; 0 for others.
    """

    kind: str
    codec: str
    timescale: int
    channels: int

    def __str__(self) -> str:
        names = {"vide": "video", "soun": "sound"}
        return f"{names.get(self.kind, self.kind)} ({self.codec})"


def check_boxes(path: Path) -> None:
    """Refuse a file whose top-level MP4 boxes do not end exactly where the file ends.

    Raises:
        CheckError: the file is not an MP4, is cut off, or bytes follow its last box.
    """
    with _opened(path) as (file, num_bytes):
        check_boxes_of(file, num_bytes, path.name)


def check_boxes_of(file: BinaryIO, num_bytes: int, name: str) -> tuple[int, int]:
    """Do as `check_boxes`, for a file that is open at its start and has `num_bytes`.

    Returns:
        Position and length of the content of `moov`, the index.
    """
    position, kinds = 0, list[bytes]()
    index = 0, 0
    while position < num_bytes:
        header = file.read(16)
        length, kind, head = int.from_bytes(header[:4]), header[4:8], 8
        if length == 1:  # the length did not fit in four bytes and follows in eight
            length, head = int.from_bytes(header[8:16]), 16
        if length < head or position + length > num_bytes:
            raise CheckError(
                f"{name} is cut off or no MP4: box {kind!r} at byte {position:,} of {num_bytes:,}"
            )
        if kind == b"moov":
            index = position + head, length - head
        kinds.append(kind)
        if len(kinds) > MAX_BOXES:
            raise CheckError(f"{name} is not an MP4: it has more than {MAX_BOXES:,} boxes")
        position += length
        file.seek(position)
    if kinds[:1] != [b"ftyp"] or b"moov" not in kinds or b"mdat" not in kinds:
        raise CheckError(f"{name} is not an MP4: expected ftyp, moov and mdat, got {kinds[:8]}")
    return index


def read_tracks(path: Path) -> tuple[Track, ...]:
    """Return the tracks of an MP4.

    Raises:
        CheckError: as for `check_boxes`, or the index is damaged.
    """
    with _opened(path) as (file, num_bytes):
        start, length = check_boxes_of(file, num_bytes, path.name)
        if length > MAX_INDEX_BYTES:
            raise CheckError(f"{path.name}: its index has {length:,} bytes")
        file.seek(start)
        index = file.read(length)
    try:
        return tuple(_track(content) for kind, content in _children(index) if kind == b"trak")
    except (KeyError, IndexError, ValueError) as error:
        raise CheckError(f"{path.name}: its index is damaged") from error


@contextlib.contextmanager
def _opened(path: Path) -> Generator[tuple[BinaryIO, int]]:
    """Open a file and yield it with its size; turn errors of reading into CheckError."""
    try:
        num_bytes = path.stat().st_size
        with path.open("rb") as file:
            yield file, num_bytes
    except OSError as error:
        raise CheckError(f"cannot read {path.name}: {error.strerror or error}") from error


def _children(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the type and content of the boxes in a box."""
    position = 0
    while position < len(content):
        length = int.from_bytes(content[position : position + 4])
        kind = content[position + 4 : position + 8]
        if length < 8 or position + length > len(content):
            raise ValueError("a box is longer than the one around it")
        yield kind, content[position + 8 : position + length]
        position += length


def _track(content: bytes) -> Track:
    media = dict(_children(dict(_children(content))[b"mdia"]))
    kind = media[b"hdlr"][8:12].decode("ascii")
    times = media[b"mdhd"]
    place = 20 if times[0] == 1 else 12  # behind two times of eight or of four bytes
    formats: bytes = media[_PATH_OF_FORMATS[0]]
    for name in _PATH_OF_FORMATS[1:]:
        formats = dict(_children(formats))[name]
    entry = formats[8:]
    return Track(
        kind,
        entry[4:8].decode("ascii"),
        int.from_bytes(times[place : place + 4]),
        int.from_bytes(entry[24:26]) if kind == "soun" else 0,
    )
