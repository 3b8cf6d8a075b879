"""The file that an axis takes its values from.

`jobs.inputs.places` decides which files a manifest may name.
"""

from pathlib import Path

from jobs.errors import JobError
from jobs.inputs.checked_inputs import ReadS3
from jobs.inputs.places import place_below
from jobs.manifest.field_values import at
from jobs.manifest.lines import SourceLocation, read_bytes
from jobs.text import shown

MAX_VALUES_FILE_BYTES = 64 * 1024 * 1024


def read_values_file(
    written: str, folder: Path | str, read_s3: ReadS3 | None, location: SourceLocation
) -> tuple[str, bytes]:
    """Return the name of a file, for messages, and its content.

    Args:
        written: path relative to `folder`, or an `s3://` URI.
        folder: folder of the manifest; neither `..` nor a link may leave it or lead to a hidden
            file. A URI for a manifest in S3, whose files lie in S3 too.
        read_s3: reads the object at a URI; None without S3.
        location: line of the manifest that names the file.

    Raises:
        ManifestError: the file is not allowed, cannot be read, or is too large.
    """
    with at(location):
        place = place_below("file", written, folder)
    if isinstance(place, str):
        return place, _object(place, read_s3, location)
    return str(place), read_bytes(place, MAX_VALUES_FILE_BYTES, "split it")


def _object(uri: str, read_s3: ReadS3 | None, location: SourceLocation) -> bytes:
    if read_s3 is None:
        raise location.refuse(f"file {shown(uri)} cannot be read: S3 is not available here")
    try:
        content = read_s3(uri)
    except JobError as error:
        raise location.refuse(f"file {shown(uri)} cannot be read: {error}") from error
    if len(content) > MAX_VALUES_FILE_BYTES:
        raise location.refuse(
            f"file {shown(uri)} is larger than {MAX_VALUES_FILE_BYTES:,} bytes; split it"
        )
    return content
