"""The state of an output, read from its store: commits, quarantine, failures, lease and newest run.

Decides whether a run that reported to be at work still is. Loads without torch or Ray.
"""

import contextlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace

from jobs.errors import ObjectMissingError, RecordError
from jobs.records.commit import committed_ids, quarantined_ids, read_as
from jobs.records.damage import without_mp4
from jobs.records.keys import PREFIXES, RUN_FILE, STATUS_FILE, list_objects, parse_key, run_key
from jobs.records.lease_record import LeaseRecord, current_lease, seconds_of
from jobs.records.names import count_names
from jobs.records.run_status import RunStatus, read_status
from jobs.records.schema import FailureRecord, utc_iso
from jobs.records.strict_json import MAX_SECONDS
from jobs.store.store import Store
from jobs.store.uri import StoredObject

MAX_FAILURES = 5
STALE_S = 60.0  # age of the last status after which a run without a lease counts as dead
AT_WORK = ("rendering", "draining")


@dataclass(frozen=True)
class OutputStatus:
    """The state of an output.

    Args:
        num_damaged: committed clips without an MP4.
        num_names: further names of committed clips.
        run_id: the newest run; None if there never was one.
        run: the status that this run wrote last; None if there is none or it cannot be read.
        run_written_at: time of that status by the store's clock, in seconds since the epoch; the
            status itself holds its driver's. None if it is unknown.
        trouble: one message for each object that cannot be read.
    """

    uri: str
    num_committed: int
    num_damaged: int
    num_names: int
    num_quarantined: int
    num_failures: int
    run_id: str | None
    run: RunStatus | None
    run_written_at: float | None
    lease: LeaseRecord | None
    last_failures: tuple[FailureRecord, ...]
    trouble: tuple[str, ...]

    @property
    def run_by_store(self) -> RunStatus | None:
        """The status with the time of the store's clock, as far as it is known."""
        return self.run and by_store(self.run, self.run_written_at)


def read_output_status(store: Store) -> OutputStatus:
    """Read the state of an output, which may be empty."""
    trouble: list[str] = []
    run_id = newest_run(store.entries(PREFIXES["run file"]))
    run, written_at, lease = None, None, None
    try:
        with contextlib.suppress(ObjectMissingError):
            if run_id is not None:
                run = read_status(store, run_id)
                written_at = modified_at(store, run_key(run_id, STATUS_FILE))
    except RecordError as error:
        trouble.append(str(error))
    try:
        lease = current_lease(store)
    except RecordError as error:
        trouble.append(str(error))
    num_failures, newest = _newest(
        (stored for _, stored in list_objects(store, "failure")), MAX_FAILURES
    )
    last_failures: list[FailureRecord] = []
    for stored in newest:
        try:
            last_failures.append(read_as(store, stored.key, FailureRecord.from_json))
        except RecordError as error:
            trouble.append(str(error))
    last_failures.sort(key=lambda failure: failure.failed_at, reverse=True)
    committed = committed_ids(store)
    return OutputStatus(
        uri=store.uri,
        num_committed=len(committed),
        num_damaged=len(without_mp4(store, committed)),
        num_names=count_names(store),
        num_quarantined=len(quarantined_ids(store)),
        num_failures=num_failures,
        run_id=run_id,
        run=run,
        run_written_at=written_at,
        lease=lease,
        last_failures=tuple(last_failures),
        trouble=tuple(trouble),
    )


def _newest(entries: Iterable[StoredObject], most: int) -> tuple[int, list[StoredObject]]:
    """Return the number of objects, and those that were written last; hold no others."""
    num_entries, newest = 0, list[StoredObject]()
    for stored in entries:
        num_entries += 1
        newest = heapq.nlargest(most, (*newest, stored), key=lambda one: one.modified_at)
    return num_entries, newest


def newest_run(entries: Iterable[StoredObject]) -> str | None:
    """Return the run whose run.json was written last."""
    started = [
        (stored.modified_at, parsed.run_id)
        for stored in entries
        if (parsed := parse_key(stored.key)) and parsed.filename == RUN_FILE
    ]
    return max(started)[1] if started else None


def modified_at(store: Store, key: str) -> float | None:
    """Return when an object was written last; None if it is not there.

    It is also None for a time that no clock shows: a program may set that of a file to any number.
    """
    found = (stored.modified_at for stored in store.entries(key) if stored.key == key)
    moment = next(found, None)
    return moment if moment is not None and 0 <= moment <= MAX_SECONDS else None


def by_store(run: RunStatus, written_at: float | None) -> RunStatus:
    """Return a status with the time of the store's clock instead of the driver's, if it is known.

    Args:
        written_at: time of the status by the store's clock, in seconds since the epoch.
    """
    return run if written_at is None else replace(run, updated_at=utc_iso(written_at))


def is_active(run: RunStatus, lease: LeaseRecord | None, now: float) -> bool:
    """Return True if a run that reported to be at work still is, as far as the store shows."""
    if lease is None:
        return now - seconds_of(run.updated_at) <= STALE_S
    return lease.run_id == run.run_id and lease.is_alive(now)
