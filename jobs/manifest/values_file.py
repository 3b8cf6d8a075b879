"""The file that an axis takes its values from: beside the manifest or in S3, and nowhere else.

A manifest may come from a stranger; the files that it names must not be a way to read other files
of this machine. Hidden files are refused in the manifest's own folder too: in a home folder or a
checkout they are `.aws/credentials`, `.ssh` and `.env`, and the content of a file becomes a
prompt, in records that other people read.
"""

from collections.abc import Callable
from pathlib import Path, PurePosixPath

from jobs.errors import JobError
from jobs.manifest.lines import SourceLocation, read_bytes
from jobs.text import shown

MAX_VALUES_FILE_BYTES = 64 * 1024 * 1024

ReadS3 = Callable[[str], bytes]


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
    if written.startswith("s3://"):
        return written, _object(written, read_s3, location)
    if isinstance(folder, str):
        uri = f"{folder}/{written}"
        return uri, _object(uri, read_s3, location)
    path = _path_inside(written, folder, location)
    return str(path), read_bytes(path, MAX_VALUES_FILE_BYTES, "split it")


def _path_inside(written: str, folder: Path, location: SourceLocation) -> Path:
    relative = PurePosixPath(written)
    if relative.is_absolute() or ".." in relative.parts:
        raise location.refuse(
            f"file must be a path below the manifest's folder, not {shown(written)}"
        )
    try:
        resolved, root = (folder / relative).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = shown(str(error))
        raise location.refuse(f"file {shown(written)} cannot be read: {reason}") from error
    if not resolved.is_relative_to(root):
        raise location.refuse(f"file {shown(written)} is a link that leaves the manifest's folder")
    if any(part.startswith(".") for part in (*relative.parts, *resolved.relative_to(root).parts)):
        raise location.refuse(
            f"file {shown(written)} is hidden (a name that begins with '.'); "
            "copy it to one that is not"
        )
    return folder / relative


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
