"""The file that an axis takes its values from: beside the manifest or in S3, and nowhere else.

A manifest may come from someone else; what it names must not be a way to read this machine's other files. Hidden ones
are refused in the manifest's own folder too: where that is somebody's home or a checkout, they are `.aws/credentials`,
`.ssh` and `.env`, and what a file holds becomes a prompt, in records that others read.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from jobs.errors import JobError
from jobs.manifest.lines import Place, read_bytes
from jobs.text import shown

MAX_VALUES_FILE_BYTES = 64 * 1024 * 1024

ReadS3 = Callable[[str], bytes]


def read_values_file(
    written: str, folder: Path, read_s3: ReadS3 | None, place: Place
) -> tuple[str, bytes]:
    """A file's name for messages, and its content.

    Args:
        written: a path relative to `folder`, or an `s3://` URI.
        folder: the manifest's; neither `..` nor a link may leave it or lead to what is hidden in it.
        read_s3: reads the object at a URI; None where S3 is not at hand.
        place: where the manifest says `written`.

    Raises:
        ManifestError: it may not be read, cannot be read, or is too large.
    """
    if written.startswith("s3://"):
        return written, _object(written, read_s3, place)
    path = _path_inside(written, folder, place)
    return str(path), read_bytes(path, MAX_VALUES_FILE_BYTES, "split it")


def _path_inside(written: str, folder: Path, place: Place) -> Path:
    relative = PurePosixPath(written)
    if relative.is_absolute() or ".." in relative.parts:
        raise place.refuse(f"file must be a path below the manifest's folder, not {shown(written)}")
    try:
        resolved, root = (folder / relative).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        raise place.refuse(f"file {shown(written)} cannot be read: {shown(str(error))}") from error
    if not resolved.is_relative_to(root):
        raise place.refuse(f"file {shown(written)} is a link that leaves the manifest's folder")
    if any(part.startswith(".") for part in (*relative.parts, *resolved.relative_to(root).parts)):
        raise place.refuse(
            f"file {shown(written)} is hidden (a name that begins with '.'); copy it to one that is not"
        )
    return folder / relative


def _object(uri: str, read_s3: ReadS3 | None, place: Place) -> bytes:
    if read_s3 is None:
        raise place.refuse(f"file {shown(uri)} cannot be read: S3 is not available here")
    try:
        content = read_s3(uri)
    except JobError as error:
        raise place.refuse(f"file {shown(uri)} cannot be read: {error}") from error
    if len(content) > MAX_VALUES_FILE_BYTES:
        raise place.refuse(
            f"file {shown(uri)} is larger than {MAX_VALUES_FILE_BYTES:,} bytes; split it"
        )
    return content
