"""What must hold of a store after whatever happened: nothing lost, nothing twice, nothing but what was asked for.

Decides it from the store alone, and from what of the farm is still running. It reads every record and every MP4 that a
record names. How often a record was ever written, the bucket's versions say (`count_writes`).
"""

import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import boto3

from jobs.errors import CheckError, ObjectMissingError, RecordError
from jobs.manifest.clip_id import clip_id
from jobs.media.decode_check import check_mp4
from jobs.records.commit import committed_ids, quarantined_ids, read_quarantine, read_record
from jobs.records.keys import record_key
from jobs.records.schema import ClipRecord
from jobs.store.store import Store
from jobs.store.uri import S3Location
from jobs.types import ClipSpec


@dataclass(frozen=True)
class Audit:
    """What is in a store.

    Args:
        num_committed: planned clips that have a record.
        num_quarantined: planned clips that have none, and are given up with a reason.
        lost: planned clips that are neither; with their names.
        duplicated: clips whose record was written more than once, or taken away and written again.
        mismatched: what a record says and is not so; and records and quarantines of clips that nobody asked for.
        orphans: processes of the farm that outlived it.
    """

    num_planned: int
    num_committed: int
    num_quarantined: int
    lost: tuple[str, ...]
    duplicated: tuple[str, ...]
    mismatched: tuple[str, ...]
    orphans: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicated or self.mismatched or self.orphans)

    @property
    def violations(self) -> tuple[str, ...]:
        """One line for each."""
        return (
            *(f"lost: {text}" for text in self.lost),
            *(f"duplicated: {text}" for text in self.duplicated),
            *(f"mismatched: {text}" for text in self.mismatched),
            *(f"orphan: {text}" for text in self.orphans),
        )


def audit(
    store: Store,
    planned: Iterable[ClipSpec],
    writes: Mapping[str, int],
    orphans: Iterable[str] = (),
) -> Audit:
    """Looks at everything that a store holds of a plan.

    Args:
        planned: the manifest's clips, each once.
        writes: how often each key of `records/` was ever written or deleted.
        orphans: processes that are still there; see `Farm.orphans`.
    """
    specs = {spec.clip_id: spec for spec in planned}
    committed, quarantined = committed_ids(store), quarantined_ids(store)
    mismatched = [
        *(
            f"{stranger} is in the store and not in the plan"
            for stranger in (committed | quarantined) - specs.keys()
        ),
        *(
            text
            for spec in specs.values()
            if spec.clip_id in committed
            for text in look_at_clip(store, spec)
        ),
        *(
            text
            for found in sorted(quarantined & specs.keys())
            for text in look_at_quarantine(store, found)
        ),
    ]
    return Audit(
        num_planned=len(specs),
        num_committed=len(committed & specs.keys()),
        num_quarantined=len((quarantined & specs.keys()) - committed),
        lost=tuple(
            f"{spec.name} ({spec.clip_id})"
            for spec in specs.values()
            if spec.clip_id not in committed | quarantined
        ),
        duplicated=tuple(
            f"{found}: its record was written or deleted {writes.get(record_key(found), 0)} times"
            for found in sorted(committed)
            if writes.get(record_key(found), 0) != 1
        ),
        mismatched=tuple(mismatched),
        orphans=tuple(orphans),
    )


def look_at_clip(store: Store, spec: ClipSpec) -> Iterator[str]:
    """What of one record is not so: about which clip it is, what was asked for, and the bytes that it names."""
    try:
        record = read_record(store, spec.clip_id)
    except RecordError as error:
        yield str(error)
        return
    if record.clip_id != spec.clip_id or clip_id(record.model, record.request) != spec.clip_id:
        yield f"the record of {spec.clip_id} describes another clip, {record.clip_id}"
    if (record.model, record.request) != (spec.model, spec.request):
        yield f"the record of {spec.clip_id} says that something else was asked for"
    try:
        yield from look_at_bytes(record, store.get(record.key))
    except ObjectMissingError:
        yield f"{record.key} is missing and a record names it"


def look_at_bytes(record: ClipRecord, body: bytes) -> Iterator[str]:
    if len(body) != record.num_bytes:
        yield f"{record.key} has {len(body):,} bytes, its record says {record.num_bytes:,}"
    if hashlib.sha256(body).hexdigest() != record.sha256:
        yield f"{record.key} has another digest than its record says"
    with tempfile.TemporaryDirectory(prefix="nagfarm-audit-") as folder:
        path = Path(folder) / "clip.mp4"
        path.write_bytes(body)
        try:
            check_mp4(path, record.request.shape, record.request.fps)
        except CheckError as error:
            yield f"{record.key} is no whole clip: {error}"


def look_at_quarantine(store: Store, found: str) -> Iterator[str]:
    try:
        quarantine = read_quarantine(store, found)
    except RecordError as error:
        yield str(error)
        return
    if quarantine.clip_id != found:
        yield f"the quarantine of {found} is about another clip, {quarantine.clip_id}"
    if not (quarantine.reason.strip() and quarantine.message.strip()):
        yield f"the quarantine of {found} gives no reason"


def enable_versions(endpoint_url: str, bucket: str) -> None:
    """From now on the bucket remembers every write and every deletion."""
    client = boto3.Session().client(
        "s3", endpoint_url=endpoint_url
    )  # the default session keeps another server's keys
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def count_writes(endpoint_url: str, location: S3Location) -> dict[str, int]:
    """How often each record of an output was written or deleted, of a bucket with versions."""
    client = boto3.Session().client(
        "s3", endpoint_url=endpoint_url
    )  # the default session keeps another server's keys
    own = f"{location.prefix}/"
    writes: dict[str, int] = {}
    pages = client.get_paginator("list_object_versions").paginate(
        Bucket=location.bucket, Prefix=f"{own}records/"
    )
    for page in pages:
        for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
            key = entry["Key"].removeprefix(own)
            writes[key] = writes.get(key, 0) + 1
    return writes
