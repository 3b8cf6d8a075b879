"""The records in the store: the commit of a clip, failures, quarantine, and the files of a run.

Decides the order of writes: first the clip's MP4, under a key that its bytes decide, then its
record, only if the store holds none. Last comes a look at the MP4, since other programs may remove
an MP4 while no record names it. A record without its MP4 does not stand: the next commit of the
clip brings the MP4 back, or replaces the record if it rendered other bytes. The callers decide when
to write, `jobs.store` how, and `schema` the fields of each record.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from jobs.digests import IdSet
from jobs.errors import ObjectExistsError, ObjectMissingError, RecordError, StoreUnavailableError
from jobs.records.keys import (
    clip_key,
    failure_key,
    list_keys,
    quarantine_key,
    record_key,
    run_key,
)
from jobs.records.schema import ClipRecord, FailureRecord, QuarantineRecord
from jobs.records.strict_json import dump, whole_document
from jobs.store.store import Store

JSON = "application/json"
MP4 = "video/mp4"
# Since the upload began; far below the age at which garbage collection may remove an
# unreferenced MP4.
COMMIT_WITHIN_S = 3600.0
MAX_UPLOADS = 3  # again, of an MP4 that other programs remove although a record names it
# It is never set, and on Linux it goes on while the machine sleeps.
UPTIME_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
R = TypeVar("R")


def uptime_s() -> float:
    return time.clock_gettime(UPTIME_CLOCK)


@dataclass(frozen=True)
class UploadedClip:
    """An MP4 in the store that no record names yet.

    Args:
        uploaded_at: start of the upload, by the clock of `uptime_s`.
        body: the MP4 itself.
    """

    clip_id: str
    uri: str
    key: str
    sha256: str
    num_bytes: int
    uploaded_at: float
    body: bytes = field(repr=False)


def upload_clip(
    store: Store, clip_id: str, body: bytes, now: Callable[[], float] = uptime_s
) -> UploadedClip:
    """Upload the MP4, the first half of the commit, and return when the store has proven it.

    A crash after the upload leaves an MP4 that no record names, and nothing else. The MP4 is
    written even if the store holds it already: the write makes it young, so that garbage collection
    spares it. AWS and SeaweedFS need one request, whose answer proves the bytes; an endpoint whose
    answer holds no checksum needs one more.

    Raises:
        StoreError: when the store refuses or does not answer. Calling again is safe.
    """
    uploaded_at = now()
    sha256 = hashlib.sha256(body).hexdigest()
    key = clip_key(clip_id, sha256)
    store.put(key, body, MP4, bytes.fromhex(sha256))
    return UploadedClip(clip_id, store.uri_of(key), key, sha256, len(body), uploaded_at, body)


def commit_record(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float] = uptime_s
) -> bool:
    """Write the record, the second half of the commit, only if the store holds none.

    This write alone makes a clip done. It takes one request, and one more for the look at the MP4.
    Of several writers one succeeds. A record whose MP4 is gone is replaced, if this MP4 is another
    one; two writers that both find it so replace it one after the other, and the last record
    stands. Each of them uploaded its MP4 before, and looks at it afterwards.

    Returns:
        True if the record in the store is this one; False if the record of another attempt was
        there first and stands.

    Raises:
        RecordError: when the record does not describe the uploaded MP4; nothing was written.
        StoreUnavailableError: when the upload is so old that the MP4 may have been removed since,
            or it is removed again and again. Begin with the upload again, which is safe after any
            of these errors.
        StoreError: when the store refuses or does not answer. Calling again is safe.
    """
    described = (record.clip_id, record.uri, record.key, record.sha256, record.num_bytes)
    if described != (clip.clip_id, clip.uri, clip.key, clip.sha256, clip.num_bytes):
        raise RecordError(
            f"the record of {record.clip_id} does not describe the MP4 that was uploaded, "
            f"{clip.uri}"
        )
    # A sleeping machine or a paused container can stop this process between the two halves.
    if now() - clip.uploaded_at > COMMIT_WITHIN_S:
        raise StoreUnavailableError(
            f"{clip.uri} was uploaded more than {COMMIT_WITHIN_S:g} s ago and may have been "
            "removed since; upload it again"
        )
    key, content = record_key(record.clip_id), record.to_json()
    is_own = True
    try:
        store.put_if_absent(key, content, JSON)
    except ObjectExistsError:
        if (other := _other_record(store, record.clip_id, content)) is not None:
            if is_intact(store, other):
                return False
            described = (other.key, other.num_bytes, other.sha256)
            if is_own := described != (clip.key, clip.num_bytes, clip.sha256):
                store.put(key, content, JSON)
    _keep_mp4(store, clip)
    return is_own


def _other_record(store: Store, clip_id: str, content: bytes) -> ClipRecord | None:
    """Return the record that was there first; None if it is this one.

    The client repeats after a lost answer, so that it may be this one.

    Raises:
        StoreUnavailableError: when the store has refused to write a second record and shows none.
    """

    def parse(found: bytes) -> ClipRecord | None:
        return None if found == content else _parse_record(found, clip_id)

    try:
        return read_as(store, record_key(clip_id), parse)
    except (ObjectMissingError, RecordError) as error:
        raise StoreUnavailableError(
            f"the store has a record of {clip_id} already, as it says, and does not return it: "
            f"{error}"
        ) from error


def _parse_record(content: bytes, clip_id: str) -> ClipRecord:
    """Return a record. Raise RecordError if it is damaged or of another clip."""
    record = ClipRecord.from_json(content)
    if record.clip_id != clip_id:
        raise RecordError(f"expected the record of {clip_id}, got that of {record.clip_id}")
    return record


def _keep_mp4(store: Store, clip: UploadedClip) -> None:
    """Look for the MP4 now that a record names it, and upload it again if it is gone.

    A garbage collection that believes a wrong clock, or a rule of the bucket, may have removed it
    before. From now on no garbage collection removes it.
    """
    for _ in range(MAX_UPLOADS):
        if store.holds(clip.key, clip.num_bytes):
            return
        store.put(clip.key, clip.body, MP4, bytes.fromhex(clip.sha256))
    raise StoreUnavailableError(
        f"{clip.uri} is gone after each of {MAX_UPLOADS} uploads, although a record names it; find "
        "out which program or rule removes objects there"
    )


def is_intact(store: Store, record: ClipRecord) -> bool:
    """Return True if the MP4 that a record names is there; its bytes are not read."""
    return store.holds(record.key, record.num_bytes)


def write_failure(store: Store, record: FailureRecord) -> None:
    store.put(failure_key(record.clip_id, record.run_id, record.attempt), record.to_json(), JSON)


def write_quarantine(store: Store, record: QuarantineRecord) -> None:
    store.put(quarantine_key(record.clip_id), record.to_json(), JSON)


def lift_quarantine(store: Store, clip_id: str) -> None:
    store.delete(quarantine_key(clip_id))


def write_run(store: Store, run_id: str, filename: str, document: Mapping[str, object]) -> None:
    """Write one JSON file of a run, such as run.json or summary.json."""
    store.put(run_key(run_id, filename), dump(document), JSON)


def committed_ids(store: Store) -> IdSet:
    """Return the ids of the clips that have a record."""
    return IdSet(parsed.clip_id for parsed in list_keys(store, "record"))


def quarantined_ids(store: Store) -> IdSet:
    """Return the ids of the quarantined clips."""
    return IdSet(parsed.clip_id for parsed in list_keys(store, "quarantine"))


def read_record(store: Store, clip_id: str) -> ClipRecord:
    """Read the record of a clip.

    Raises:
        ObjectMissingError: when the clip has no record.
        RecordError: when the record is damaged, has another version or is of another clip.
    """
    return read_as(store, record_key(clip_id), lambda content: _parse_record(content, clip_id))


def read_quarantine(store: Store, clip_id: str) -> QuarantineRecord:
    """Read why a clip is quarantined. Raises the same errors as `read_record`."""
    return read_as(store, quarantine_key(clip_id), QuarantineRecord.from_json)


def read_failures(store: Store, clip_id: str) -> list[FailureRecord]:
    """Read all failures of a clip, oldest first."""
    failures = [
        read_as(store, parsed.key, FailureRecord.from_json)
        for parsed in list_keys(store, "failure", clip_id)
    ]
    return sorted(failures, key=lambda failure: (failure.failed_at, failure.attempt))


def read_as(store: Store, key: str, parse: Callable[[bytes], R]) -> R:
    """Read an object and parse it; a RecordError names the object's URI."""
    try:
        return parse(whole_document(store.chunks(key)))
    except RecordError as error:
        raise RecordError(f"{store.uri_of(key)}: {error}") from error
