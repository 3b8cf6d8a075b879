"""One committed clip as a file on this machine, with the bytes that its record names."""

from pathlib import Path

from jobs.errors import RecordError
from jobs.records.reading import ObjectReader
from jobs.records.schema import ClipRecord


def fetch_clip(reader: ObjectReader, record: ClipRecord, folder: Path) -> Path:
    """Copy the MP4 of a clip to a folder, and return its path.

    Raises:
        ObjectMissingError, UnreadableError, StoreError: it cannot be read.
        RecordError: it has other bytes than its record says.
    """
    path = folder / f"{record.clip_id}.mp4"
    size, sha256 = reader.digest(record.key, record.num_bytes, path)
    if (size, sha256) != (record.num_bytes, record.sha256):
        raise RecordError(f"{record.key} has other bytes than its record says")
    return path
