"""The place of a gallery: `report/` in its output, or a folder of its own.

Decides the names of its files there. The data files carry their digest, so that a file that is
there is the right one, and pages that are open go on while new data are written.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from jobs.errors import ObjectMissingError, RecordError, StoreRefusedError
from jobs.records.keys import PREFIXES, report_key
from jobs.records.strict_json import MAX_DOCUMENT_BYTES
from jobs.report.scripts import JAVASCRIPT, VERSION, digest_of, document_of, script
from jobs.store.store import Store

DATA = "data/"
INDEX_NAME = "index.js"
DATA_FILE = re.compile(r"(part|details)-[0-9]+-[0-9a-f]{16}\.js")
KEEP_S = 600.0  # for pages that are open; they load the index anew more often


@dataclass(frozen=True)
class Target:
    """The files of one gallery.

    Args:
        store: the output, or a folder.
        is_output: True if the gallery lies in the output, under `report/`.
    """

    store: Store
    is_output: bool

    def key(self, name: str) -> str:
        return report_key(name) if self.is_output else name

    @property
    def data_prefix(self) -> str:
        return f"{PREFIXES['report'] if self.is_output else ''}{DATA}"

    def write(self, name: str, body: bytes, content_type: str) -> None:
        self.store.put(self.key(name), body, content_type)

    def write_data(self, kind: str, document: dict[str, Any], number: int) -> str:
        """Write a data file under a name that its content decides, and return the name."""
        content = script(kind, document, number)
        name = f"{kind}-{number}-{digest_of(content)}.js"
        self.write(f"{DATA}{name}", content, JAVASCRIPT)
        return name

    def write_index(self, document: dict[str, Any]) -> None:
        self.write(f"{DATA}{INDEX_NAME}", script("index", document), JAVASCRIPT)

    def read_data(self, kind: str, name: str) -> dict[str, Any]:
        """Return the document of a data file.

        Raises:
            ObjectMissingError: it is not there.
            RecordError: it is not a data file of this kind, or is not whole.
        """
        if kind != "index" and not DATA_FILE.fullmatch(name):
            raise RecordError(f"{name!r} cannot be a data file of the gallery")
        content = bytearray()
        for piece in self.store.chunks(self.key(f"{DATA}{name}")):
            content += piece
            if len(content) > MAX_DOCUMENT_BYTES:
                raise RecordError(f"{name} is larger than {MAX_DOCUMENT_BYTES:,} bytes")
        if kind != "index" and digest_of(bytes(content)) not in name:
            raise RecordError(f"{name} has other content than its name says")
        return document_of(kind, bytes(content))

    def read_index(self) -> dict[str, Any] | None:
        """Return the index; None if there is none that this version can read."""
        with suppress(ObjectMissingError, RecordError):
            index = self.read_data("index", INDEX_NAME)
            if index.get("version") == VERSION and _names_files(index):
                return index
        return None

    def sweep(self, named: Iterable[str]) -> None:
        """Remove data files that no index names any more, unless they are young.

        What cannot be removed, for want of the right, does no harm.
        """
        written_before, wanted = self.store.now() - KEEP_S, set(named)
        with suppress(StoreRefusedError):
            for stored in list(self.store.entries(self.data_prefix)):
                name = stored.key.removeprefix(self.data_prefix)
                is_needed = name in wanted or not DATA_FILE.fullmatch(name)
                if not is_needed and stored.modified_at <= written_before:
                    self.store.delete(stored.key)


def is_left_over(store: Store, key: str) -> bool:
    """Return True for a data file of an output's gallery that its index does not name."""
    target = Target(store, is_output=True)
    name = key.removeprefix(target.data_prefix)
    return bool(DATA_FILE.fullmatch(name)) and name not in named_files(target.read_index())


def named_files(index: dict[str, Any] | None) -> set[str]:
    """Return the data files that an index names."""
    listed = [] if index is None else [*index["parts"], *index["details"]]
    return {one["file"] for one in listed}


def _names_files(index: dict[str, Any]) -> bool:
    """Return True if an index names its data files, two for each part."""
    parts, details = index.get("parts"), index.get("details")
    if not (isinstance(parts, list) and isinstance(details, list) and len(parts) == len(details)):
        return False
    listed = cast("list[Any]", [*parts, *details])
    return all(isinstance(one, dict) and isinstance(one.get("file"), str) for one in listed)
