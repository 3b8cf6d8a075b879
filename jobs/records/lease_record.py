"""The object of a lease in the store, and the refusal or the wait of a driver that finds another's.

Decides when a lease is alive, how a driver is refused, and how long it waits. `lease` takes and
keeps leases.
"""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from jobs.errors import (
    LeaseHeldError,
    LeaseUnusableError,
    ObjectMissingError,
    RecordError,
    StoreError,
)
from jobs.records.commit import read_as
from jobs.records.keys import LAST_EPOCH, check_run_id, lease_key, list_keys
from jobs.records.schema import check_time
from jobs.records.strict_json import dump, from_dataclass, load, to_dataclass
from jobs.store.store import Store
from jobs.text import duration

MIN_WAIT_S, MAX_WAIT_S = 0.5, 5.0  # between two looks of a driver that waits for a lease
MAX_LOOKS = 10  # at a lease that is listed and gone when it is read; each time a driver replaced it


@dataclass(frozen=True)
class LeaseOwner:
    """The process of the driver."""

    host: str
    pid: int


@dataclass(frozen=True)
class LeaseRecord:
    """The content of a lease's object. All times are by the store's clock."""

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
        owner = self.owner
        return f"run {self.run_id} on {owner.host} (process {owner.pid}), since {self.taken_at}"


def refuse_if_leased(store: Store) -> None:
    """Raise LeaseHeldError if another driver holds the output.

    Raises:
        LeaseUnusableError: the lease cannot be read, or no higher number exists.
    """
    if highest := max(epochs(store), default=0):
        refuse_if_last(store, highest)
        refuse_if_alive(store, highest, store.now())


def refuse_if_alive(store: Store, epoch: int, now: float) -> None:
    """Raise LeaseHeldError if the highest lease of an output is alive.

    Raises:
        LeaseUnusableError: the lease cannot be read.
    """
    if holder := live_lease(store, epoch, now):
        raise LeaseHeldError(
            f"{store.uri} is leased by another driver: {holder}; the lease expires at "
            f"{holder.expires_at} unless that driver renews it; wait with render --wait or, if "
            "that driver is dead, take the output at once with render --takeover"
        )


def refuse_if_last(store: Store, epoch: int) -> None:
    """Raise LeaseUnusableError if no higher number exists. No driver ever reaches the last one."""
    if epoch >= LAST_EPOCH:
        raise LeaseUnusableError(
            f"{store.uri_of(lease_key(epoch))} has the last number that a lease can have; no "
            "driver counts that far, so another program wrote it: remove that object"
        )


def wait_until_free(
    store: Store,
    say: Callable[[str], None],
    limit_s: float = math.inf,
    pause: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until no live driver holds the output; return True if one did.

    Args:
        say: prints a line for each driver that is waited for.
        limit_s: longest wait in seconds, by the store's clock.

    Raises:
        LeaseHeldError: a driver still held the output at the end of the wait.
        LeaseUnusableError: the lease cannot be read, or no higher number exists.
        StoreError: the store refuses or does not answer.
    """
    named, until = None, store.now() + limit_s
    while highest := max(epochs(store), default=0):
        refuse_if_last(store, highest)
        now = store.now()
        holder = live_lease(store, highest, now)
        if holder is None:
            break
        left_s = seconds_of(holder.expires_at) - now
        if holder.run_id != named:
            named = holder.run_id
            say(
                f"waiting for {store.uri}, which another driver holds: {holder}; it is free when "
                f"that driver ends or, if it is dead, in {duration(left_s)}"
            )
        if now >= until:
            raise LeaseHeldError(
                f"{store.uri} is still leased by another driver after a wait: {holder}; come again "
                "later, or wait for longer"
            )
        pause(min(max(left_s, MIN_WAIT_S), MAX_WAIT_S, max(until - now, 0.0)))
    return named is not None


def live_lease(store: Store, epoch: int, now: float) -> LeaseRecord | None:
    """Return the highest lease of an output if it is alive.

    Raises:
        LeaseUnusableError: it cannot be read.
    """
    try:
        holder = read_lease(store, epoch)
    except ObjectMissingError:
        return (
            None  # a higher lease was written in between; a driver that takes the output finds it
        )
    except RecordError as error:
        raise LeaseUnusableError(
            f"another driver may hold {store.uri}, whose lease cannot be read: {error}; "
            "if no driver is at work there, take the output with render --takeover"
        ) from error
    return holder if holder.is_alive(now) else None


def current_lease(store: Store) -> LeaseRecord | None:
    """Return the lease with the highest number, alive or not; None if there never was one.

    Raises:
        RecordError: when the object cannot be read as a lease, or is listed and not returned.
    """
    highest = 0
    for _ in range(MAX_LOOKS):
        highest = max(epochs(store), default=0)
        if not highest:
            return None
        with contextlib.suppress(ObjectMissingError):  # a higher lease was written in between
            return read_lease(store, highest)
    raise RecordError(f"{store.uri_of(lease_key(highest))} is listed and does not exist")


def read_lease(store: Store, epoch: int) -> LeaseRecord:
    return read_as(store, lease_key(epoch), LeaseRecord.from_json)


def described(store: Store, epoch: int) -> str:
    """Return the owner of a lease as the rest of a sentence; "" if the lease cannot be read."""
    try:
        return f": {read_lease(store, epoch)}"
    except StoreError:
        return ""


def epochs(store: Store) -> list[int]:
    """Return the numbers of the leases in a store, in no order."""
    return [parsed.epoch for parsed in list_keys(store, "lease")]


def seconds_of(time_utc: str) -> float:
    """Return a record's time as seconds since the epoch."""
    return datetime.fromisoformat(time_utc).timestamp()
