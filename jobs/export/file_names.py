"""The file names of exported clips.

A record's name comes from whoever can write to the store. So a file name holds only characters that
no shell, file system or program reads as more than a letter, and never names another folder. Two
clips of one name, or of names that differ only in upper and lower case, get two files.
"""

import re
from dataclasses import dataclass

from jobs.digests import DigestSet, digest_of
from jobs.manifest.field_values import MAX_NAME_CHARACTERS, NAME_PATTERN

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class FileNames:
    """The names without suffix that a clip's files may have.

    Args:
        own: name of the clip.
        with_id: name of the clip and its id, which belongs to no other clip.
        is_own_free: True if no clip before had the same name.
    """

    own: str
    with_id: str
    is_own_free: bool

    @property
    def to_take(self) -> tuple[str, ...]:
        """Return the names that a new file may take, best first."""
        return (self.own, self.with_id) if self.is_own_free else (self.with_id,)


class FileNamer:
    """Names the files of one export, clip after clip."""

    def __init__(self) -> None:
        self._taken = DigestSet()

    def names(self, name: str, clip_id: str) -> FileNames:
        own = safe_name(name)
        is_free = self._taken.add(digest_of(own.casefold()))
        return FileNames(own, f"{own}-{clip_id}", is_own_free=is_free and own == name)


def safe_name(name: str) -> str:
    """Return a name that is safe as the name of a file; a manifest's names are already."""
    if (
        re.fullmatch(NAME_PATTERN, name)
        and len(name) <= MAX_NAME_CHARACTERS
        and not name.startswith("-")  # a program would take it for an option
    ):
        return name
    return safe_part(name[:MAX_NAME_CHARACTERS]).lstrip(".-") or "clip"


def safe_part(text: str) -> str:
    """Return a text that is safe inside of a file's name; other characters become `_`."""
    return _UNSAFE.sub("_", text)
