"""Writing records to the store and reading them: the commit of a clip, failures, quarantine, files of a run.

Decides the order of writes: the clip first, under a name that its bytes give it, then its record, only if there is
none. Whether and when to write is for `dispatch`, how for `store`, what a record holds for `record_types`.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from jobs.errors import ObjectExistsError, RecordError, StoreUnavailableError
from jobs.records.schema import (
    CLIP_ID,
    ClipRecord,
    FailureRecord,
    NagCoverage,
    QuarantineRecord,
    WorkerIdentity,
    check_clip_id,
    clip_key,
    failure_key,
    latents_key,
    quarantine_key,
    record_key,
    run_key,
    stage_totals_s,
    utc_iso,
)
from jobs.records.strict_json import dump
from jobs.store.store import Store

__all__ = [
    "RUN_FILE",
    "ClipRecord",
    "FailureRecord",
    "NagCoverage",
    "QuarantineRecord",
    "UploadedClip",
    "WorkerIdentity",
    "clip_key",
    "commit_record",
    "committed_ids",
    "failure_key",
    "latents_key",
    "lift_quarantine",
    "quarantine_key",
    "quarantined_ids",
    "read_failures",
    "read_quarantine",
    "read_record",
    "record_key",
    "run_key",
    "stage_totals_s",
    "upload_clip",
    "utc_iso",
    "write_failure",
    "write_quarantine",
    "write_run",
]

JSON = "application/json"
MP4 = "video/mp4"
RUN_FILE = "run.json"  # a run's first file: what was asked for, of what, on what
COMMIT_WITHIN_S = (
    3600.0  # of the upload; far below the age at which an MP4 that no record names may be removed
)
R = TypeVar("R")


@dataclass(frozen=True)
class UploadedClip:
    """An MP4 that lies in the store and that no record names yet.

    Args:
        uploaded_at: when its upload began, in seconds since the epoch.
    """

    clip_id: str
    uri: str
    key: str
    sha256: str
    num_bytes: int
    uploaded_at: float = field(compare=False)


def upload_clip(
    store: Store, clip_id: str, body: bytes, now: Callable[[], float] = time.time
) -> UploadedClip:
    """The commit's first half: the MP4, under a name that its bytes give it. Returns when it is proven to be there.

    A crash after it leaves an MP4 that no record names, and nothing else. It is written even where it is there already:
    that makes it young, and so safe from being removed as unreferenced. One request to AWS and SeaweedFS, whose answer
    proves it; one more to an endpoint whose answer holds no checksum.

    Raises:
        StoreError: the store refused or did not answer. Calling again is safe.
    """
    uploaded_at = now()
    sha256 = hashlib.sha256(body).hexdigest()
    key = clip_key(clip_id, sha256)
    store.put(key, body, MP4)
    return UploadedClip(clip_id, store.uri_of(key), key, sha256, len(body), uploaded_at)


def commit_record(
    store: Store, clip: UploadedClip, record: ClipRecord, now: Callable[[], float] = time.time
) -> bool:
    """The commit's second half: the record, only if no other is there. The one step that makes a clip done.

    One request, and one more where a record is there already.

    Returns:
        Whether the record in the store is this one; False when another attempt's was there first and stands.

    Raises:
        RecordError: the record describes something else than the MP4 that was uploaded; nothing was written.
        StoreUnavailableError: the upload is so long ago that the MP4 may have been removed since: begin with the
            upload again, which is safe, as after any other of these errors.
        StoreError: the store refused or did not answer. Calling again is safe.
    """
    described = UploadedClip(
        record.clip_id, record.uri, record.key, record.sha256, record.num_bytes, clip.uploaded_at
    )
    if clip != described:
        raise RecordError(
            f"the record of {record.clip_id} does not describe the MP4 that was uploaded, {clip.uri}"
        )
    if (
        now() - clip.uploaded_at > COMMIT_WITHIN_S
    ):  # this process stood still: a machine asleep, a container paused
        raise StoreUnavailableError(
            f"{clip.uri} was uploaded more than {COMMIT_WITHIN_S:g} s ago, and may be gone by now; upload it again"
        )
    content = record.to_json()
    try:
        store.put_if_absent(record_key(record.clip_id), content, JSON)
    except ObjectExistsError:
        # it may be ours: the client writes again when the first answer was lost
        return store.get(record_key(record.clip_id)) == content
    return True


def write_failure(store: Store, record: FailureRecord) -> None:
    store.put(failure_key(record.clip_id, record.run_id, record.attempt), record.to_json(), JSON)


def write_quarantine(store: Store, record: QuarantineRecord) -> None:
    store.put(quarantine_key(record.clip_id), record.to_json(), JSON)


def lift_quarantine(store: Store, clip_id: str) -> None:
    store.delete(quarantine_key(clip_id))


def write_run(store: Store, run_id: str, filename: str, document: Mapping[str, object]) -> None:
    """Writes one JSON file of a run, such as run.json or summary.json."""
    store.put(run_key(run_id, filename), dump(document), JSON)


def committed_ids(store: Store) -> set[str]:
    """The clips that are done."""
    return set(ids_below(store, "records/"))


def quarantined_ids(store: Store) -> set[str]:
    """The clips that are given up."""
    return set(ids_below(store, "quarantine/"))


def ids_below(store: Store, prefix: str) -> Iterator[str]:
    for key in store.keys(prefix):
        clip_id = key.removeprefix(prefix).removesuffix(".json")
        if key.endswith(".json") and CLIP_ID.fullmatch(clip_id):
            yield clip_id


def read_record(store: Store, clip_id: str) -> ClipRecord:
    """Raises ObjectMissingError if the clip is not done, RecordError if its record is none."""
    return read_as(store, record_key(clip_id), ClipRecord.from_json)


def read_quarantine(store: Store, clip_id: str) -> QuarantineRecord:
    return read_as(store, quarantine_key(clip_id), QuarantineRecord.from_json)


def read_failures(store: Store, clip_id: str) -> list[FailureRecord]:
    """All failures of a clip, the oldest first."""
    keys = [
        key for key in store.keys(f"failures/{check_clip_id(clip_id)}/") if key.endswith(".json")
    ]
    failures = [read_as(store, key, FailureRecord.from_json) for key in keys]
    return sorted(failures, key=lambda failure: (failure.failed_at, failure.attempt))


def read_as(store: Store, key: str, parse: Callable[[bytes], R]) -> R:
    try:
        return parse(store.get(key))
    except RecordError as error:
        raise RecordError(f"{store.uri_of(key)}: {error}") from error
