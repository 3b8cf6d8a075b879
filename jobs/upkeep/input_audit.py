"""The audit of uploaded images and videos: their bytes, and the clips that begin with them.

Each object is read once, and its name is the digest that its bytes must have. Memory holds 16 bytes
for each whole object, and the names of the damaged ones.
"""

from collections.abc import Iterator

from jobs.digests import Sha256Set
from jobs.errors import ObjectMissingError
from jobs.media.input_videos import MAX_VIDEO_BYTES
from jobs.records.keys import input_key, list_objects
from jobs.records.reading import ObjectReader, UnreadableError
from jobs.store.parts import in_parallel
from jobs.store.store import Store
from jobs.upkeep.findings import Finding
from pipelines.clip_inputs import InputFile


class InputAuditor:
    """The uploaded inputs of one output. Read all of them before the first clip is asked for.

    Args:
        reader: reads the objects; several threads share it.
    """

    def __init__(self, store: Store, reader: ObjectReader) -> None:
        self._store = store
        self._reader = reader
        self._whole = Sha256Set()
        self._faults: dict[str, str] = {}  # by digest
        self._named = set[str]()  # damaged ones that a finding about a clip tells of

    def read_all(self, num_threads: int) -> Iterator[int]:
        """Read every input on several threads; yield the number of bytes of each."""

        def read(sha256: str) -> tuple[str, int, str]:
            return sha256, *self._read(sha256)

        listed = (parsed.sha256 for parsed, _ in list_objects(self._store, "input"))
        for sha256, num_bytes, fault in in_parallel(read, listed, num_threads):
            if fault:
                self._faults[sha256] = fault
            else:
                self._whole.add(sha256)
            yield num_bytes

    def find_faults(
        self, clip_id: str, files: tuple[InputFile, ...], *, is_committed: bool
    ) -> Iterator[Finding]:
        """Yield a finding for each file of a clip that is missing or damaged. For any thread.

        Args:
            is_committed: True if no run needs the files of the clip any more.
        """
        for file in files:
            if file.sha256 in self._whole:
                continue
            fault = self._faults.get(file.sha256) or self._read(file.sha256)[1]
            if fault:
                self._named.add(file.sha256)
                end = (
                    "the clip is whole, but cannot be rendered again from this output"
                    if is_committed
                    else "a run with the first file uploads it again"
                )
                key = input_key(file.sha256)
                yield Finding("input", clip_id, key, f"{key} ({file.name}) {fault}; {end}")

    def find_others(self) -> Iterator[Finding]:
        """Yield a finding for each damaged input that no clip named so far."""
        for sha256, fault in sorted(self._faults.items()):
            if sha256 not in self._named:
                key = input_key(sha256)
                yield Finding("input", "", key, f"{key} {fault}")

    def _read(self, sha256: str) -> tuple[int, str]:
        """Return the number of bytes of an input, and its fault; empty if it has none."""
        try:
            num_bytes, found = self._reader.digest(input_key(sha256), MAX_VIDEO_BYTES)
        except ObjectMissingError:
            return 0, "is missing"
        except UnreadableError as error:
            return 0, f"cannot be read: {error}"
        if found != sha256:
            return num_bytes, "has other bytes than those of its digest: remove it"
        return num_bytes, ""
