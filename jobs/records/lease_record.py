"""What a lease's object in the store says, and what that means for somebody who looks at it.

Decides when a lease is alive and what a driver that is refused is told. Taking and keeping one is for `lease`.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobs.errors import LeaseHeldError, ObjectMissingError, RecordError, StoreError
from jobs.records.commit import read_as
from jobs.records.schema import check_run_id, check_time
from jobs.records.strict_json import dump, from_dataclass, load, to_dataclass
from jobs.store.store import Store

LEASES = "lease/"
LEASE_KEY = re.compile(r"lease/(\d{10})\.json")


@dataclass(frozen=True)
class LeaseOwner:
    """The driver's process."""

    host: str
    pid: int


@dataclass(frozen=True)
class LeaseRecord:
    """What lies in the store. Times are by the owner's clock."""

    run_id: str
    owner: LeaseOwner
    taken_at: str
    renewed_at: str
    expires_at: str
    is_released: bool

    def __post_init__(self) -> None:
        check_run_id(self.run_id)
        for name in ("taken_at", "renewed_at", "expires_at"):
            check_time(name, getattr(self, name))

    def is_alive(self, now: float) -> bool:
        return not self.is_released and now < seconds_of(self.expires_at)

    def to_json(self) -> bytes:
        return dump(from_dataclass(self))

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        return to_dataclass(cls, load(content))

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.owner.host} (process {self.owner.pid}), since {self.taken_at}"


def refuse_if_leased(store: Store, now: float) -> None:
    """Raises LeaseHeldError if a driver is at work on the output, or if that cannot be told."""
    if highest := max(epochs(store), default=0):
        refuse_if_alive(store, highest, now)


def refuse_if_alive(store: Store, epoch: int, now: float) -> None:
    """Raises LeaseHeldError if a lease, the highest of its output, is alive or cannot be read."""
    try:
        holder = read_lease(store, epoch)
    except ObjectMissingError:
        return  # a higher one was written in between; whoever takes the output finds it
    except RecordError as error:
        raise LeaseHeldError(
            f"{store.uri} may be another driver's, for its lease cannot be read: {error}; render --takeover takes it "
            "where no driver is at work"
        ) from error
    if holder.is_alive(now):
        raise LeaseHeldError(
            f"{store.uri} is another driver's: {holder}; its lease ends by itself at {holder.expires_at} unless that "
            "driver renews it; render --takeover takes it at once, where that driver is dead"
        )


def current_lease(store: Store) -> LeaseRecord | None:
    """The last lease that was taken, alive or not; None where there never was one.

    Raises:
        RecordError: what lies there is none.
    """
    while highest := max(epochs(store), default=0):
        try:
            return read_lease(store, highest)
        except ObjectMissingError:
            continue  # a higher one was written in between
    return None


def read_lease(store: Store, epoch: int) -> LeaseRecord:
    return read_as(store, lease_key(epoch), LeaseRecord.from_json)


def described(store: Store, epoch: int) -> str:
    """Whose a lease is, as the rest of a sentence; nothing where it cannot be told."""
    try:
        return f": {read_lease(store, epoch)}"
    except StoreError:
        return ""


def epochs(store: Store) -> list[int]:
    """The numbers of the leases that lie in a store, in no order."""
    return [int(found[1]) for key in store.keys(LEASES) if (found := LEASE_KEY.fullmatch(key))]


def lease_key(epoch: int) -> str:
    return f"{LEASES}{epoch:010}.json"


def seconds_of(time_utc: str) -> float:
    """A record's time as seconds since the epoch."""
    return datetime.fromisoformat(time_utc).timestamp()
