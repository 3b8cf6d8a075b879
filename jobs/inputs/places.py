"""The place of a file that a manifest names: on this machine or in S3, and nowhere else.

A manifest may come from a stranger; the files that it names must not be a way to read other files
of this machine. A relative name lies below the manifest's folder, or beside a manifest in S3.
Neither `..` nor a link may leave that folder. Hidden files are refused in the manifest's own folder
too: in a home folder or a checkout they are `.aws/credentials`, `.ssh` and `.env`, and the content
of a file becomes a prompt or a clip, which other people see. An absolute path is written as
`file:///folder/name`, for images and videos alone, in a manifest on this machine alone; no part of
it may be hidden, nor any part of the path that its links lead to.
"""

from pathlib import Path, PurePath, PurePosixPath
from urllib.parse import unquote

from jobs.errors import RowValueError
from jobs.text import shown

S3, FILE = "s3://", "file://"
Place = Path | str  # a path on this machine, or the URI of an object in S3


def place_below(field: str, written: str, folder: Path | str) -> Place:
    """Return the place of a file that a manifest names by a relative name or an `s3://` URI.

    Args:
        field: the field or key that names the file, for messages.
        folder: folder of the manifest; a URI for a manifest in S3.

    Raises:
        RowValueError: the file is not allowed.
    """
    if written.startswith(S3):
        return written
    if isinstance(folder, str):
        return f"{folder}/{written}"  # no key of S3 holds `..`, see `parse_object_uri`
    relative = PurePosixPath(written)
    if relative.is_absolute() or ".." in relative.parts:
        raise RowValueError(
            f"{field} must be a path below the manifest's folder, not {shown(written)}"
        )
    try:
        resolved, root = (folder / relative).resolve(), folder.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle
        reason = shown(str(error))
        raise RowValueError(f"{field} {shown(written)} cannot be read: {reason}") from error
    if not resolved.is_relative_to(root):
        raise RowValueError(f"{field} {shown(written)} is a link that leaves the manifest's folder")
    if _is_hidden(relative) or _is_hidden(resolved.relative_to(root)):
        raise RowValueError(
            f"{field} {shown(written)} is hidden (a name that begins with '.'); "
            "copy it to one that is not"
        )
    return folder / relative


def place_of_input(field: str, written: str, folder: Path | str) -> Place:
    """Return the place of an image or a video, which `file://` may name too.

    Raises:
        RowValueError: the file is not allowed.
    """
    if not written.isprintable() or not written.strip():
        raise RowValueError(f"{field} must be a printable name, not {shown(written)}")
    if written.startswith(FILE):
        return _absolute(field, written, folder)
    scheme, separator, _ = written.partition("://")
    if separator and scheme != "s3":
        raise RowValueError(
            f"{field} must be a path below the manifest's folder, file:///folder/name or "
            f"s3://bucket/key, not {shown(written)}: copy it to one of these"
        )
    return place_below(field, written, folder)


def _absolute(field: str, written: str, folder: Path | str) -> Path:
    if isinstance(folder, str):
        raise RowValueError(
            f"{field} {shown(written)} is a file of this machine, which a manifest in S3 must not "
            "name; copy it to S3"
        )
    try:
        path = PurePosixPath(unquote(written.removeprefix(FILE), errors="strict"))
        if not path.is_absolute() or ".." in path.parts:
            raise RowValueError(
                f"{field} must be an absolute path without '..', such as file:///folder/name, not "
                f"{shown(written)}"
            )
        resolved = Path(path).resolve()
    except (OSError, UnicodeError, RuntimeError) as error:
        reason = shown(str(error))
        raise RowValueError(f"{field} {shown(written)} cannot be read: {reason}") from error
    if not str(path).isprintable():
        raise RowValueError(f"{field} must be a printable name, not {shown(str(path))}")
    if _is_hidden(path) or _is_hidden(resolved):
        raise RowValueError(
            f"{field} {shown(written)} is hidden (a name that begins with '.'); "
            "copy it to one that is not"
        )
    return Path(path)


def _is_hidden(path: PurePath) -> bool:
    return any(part.startswith(".") for part in path.parts)
