"""Who may write to an output: a lease in the store, held by one driver at a time, numbered so that a loser can tell.

Decides whose an output is, and when a driver has lost it; when a lease is alive is for `lease_record`. A lease saves
work and guards no clip: whatever a second driver does, one record is committed for each clip. Loads without torch or
Ray.

Lease number N lies under `lease/<N as ten digits>.json`. A driver takes the output by writing the number after the
highest one, only if it is not there; from then on it alone writes that object. It has lost when there is a higher one.

The highest number is never removed, not even when its driver lets go: the next driver would begin again at 1, and one
that was thought dead could believe itself the holder of that 1. Nor does a driver hold what it has written before it
has listed the numbers once more. It may have slept since its first look, while two others took the output and the
second swept the first one's number away: then it has just written a number for the second time. But a higher one is
there, because a number is swept away by a higher one's holder alone.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from jobs.errors import (
    LeaseHeldError,
    LeaseLostError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
)
from jobs.records.commit import JSON
from jobs.records.lease_record import (
    LeaseOwner,
    LeaseRecord,
    described,
    epochs,
    lease_key,
    refuse_if_alive,
)
from jobs.records.schema import utc_iso
from jobs.store.store import Store

RENEWALS = 3  # in one duration, so that two may fail before the lease is over
MAX_RACES = 10  # lost in a row before a driver gives in; each one lost is another driver's success
Clock = Callable[[], float]


@dataclass(frozen=True)
class Lease:
    """The right to write to an output, as long as it is renewed."""

    store: Store
    epoch: int
    taken: LeaseRecord
    duration_s: float
    now: Clock

    @classmethod
    def take(
        cls,
        store: Store,
        run_id: str,
        duration_s: float,
        is_takeover: bool = False,
        now: Clock = time.time,
    ) -> Self:
        """Takes an output that is free: never leased, released, or leased by a driver whose time is over.

        Args:
            duration_s: how long the lease lasts when it is not renewed.
            is_takeover: takes it from a live driver too, namely the one that holds it now: a third that takes it
                meanwhile is left alone.

        Raises:
            LeaseHeldError: another driver has it.
            StoreError: the store refused or did not answer.
        """
        for race in range(MAX_RACES):
            highest = max(epochs(store), default=0)
            if highest and not (is_takeover and race == 0):
                refuse_if_alive(store, highest, now())
            lease = cls(store, highest + 1, new_record(run_id, now(), duration_s), duration_s, now)
            if lease._is_created() and not lease._highest_above():
                with contextlib.suppress(StoreError):  # done again at each renewal
                    lease._sweep()
                return lease
        raise LeaseHeldError(
            f"{store.uri} is being taken by other drivers again and again; see who is at work on it"
        )

    def renew(self) -> None:
        """Makes the lease last for another `duration_s`, also one that was over and that nobody took.

        Raises:
            LeaseLostError: another driver has taken the output.
            StoreError: the store refused or did not answer. Calling again is safe.
        """
        now = self.now()
        self._write(
            replace(self.taken, renewed_at=utc_iso(now), expires_at=utc_iso(now + self.duration_s))
        )
        if (
            highest := self._highest_above()
        ):  # looked for after the write, which may have taken long
            raise LeaseLostError(
                f"another driver has taken this output{described(self.store, highest)}; this one leaves it to that "
                "one, and what it has committed stays"
            )
        self._sweep()

    def release(self) -> None:
        """Lets go at once. The object stays, because its number must not be used again."""
        now = utc_iso(self.now())
        self._write(replace(self.taken, renewed_at=now, expires_at=now, is_released=True))

    def _is_created(self) -> bool:
        """Writes this lease's object for the first time; False if its number is another's."""
        content = self.taken.to_json()
        try:
            self.store.put_if_absent(lease_key(self.epoch), content, JSON)
        except ObjectExistsError:
            # it may be ours: the client writes again when the first answer was lost
            try:
                return self.store.get(lease_key(self.epoch)) == content
            except ObjectMissingError:
                return False
        return True

    def _write(self, record: LeaseRecord) -> None:
        self.store.put(lease_key(self.epoch), record.to_json(), JSON)

    def _highest_above(self) -> int:
        """The highest number, if it is above this lease's; else 0."""
        highest = max(epochs(self.store), default=0)
        return highest if highest > self.epoch else 0

    def _sweep(self) -> None:
        """Removes lower numbers: those before this one, and what their drivers wrote before they knew of their loss."""
        for epoch in epochs(self.store):
            if epoch < self.epoch:
                self.store.delete(lease_key(epoch))


class LeaseKeeper:
    """Renews a lease in a thread of its own, from `with` to its end, where it is released.

    Trouble with the store is no loss: it tries again at the next turn.

    Args:
        on_turn: is called at the start and after each renewal, in the keeper's thread.
    """

    def __init__(self, lease: Lease, on_turn: Callable[[], None] | None = None) -> None:
        self.lease = lease
        self._on_turn = on_turn
        self._lost: str | None = None
        self._trouble: str | None = None
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease", daemon=True)

    @property
    def lost(self) -> str | None:
        """What became of the lease, once it is another's: the driver asks in its loop and raises LeaseLostError."""
        return self._lost

    @property
    def trouble(self) -> str | None:
        """What the store said at the last turn, if it did not do what was asked."""
        return self._trouble

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_over.set()
        self._thread.join(self.lease.duration_s)
        # a renewal that still hangs would undo the release; without one the lease ends by itself
        if self._lost is None and not self._thread.is_alive():
            self._trouble = self._trouble_of(self.lease.release)

    def turn(self) -> None:
        """Renews once, unless the lease is lost, and calls `on_turn`."""
        trouble = self._trouble_of(self._renew)
        self._trouble = self._trouble_of(self._on_turn) or trouble

    def _renew(self) -> None:
        if self._lost is None:
            try:
                self.lease.renew()
            except LeaseLostError as error:
                self._lost = str(error)

    def _trouble_of(self, action: Callable[[], None] | None) -> str | None:
        try:
            if action is not None:
                action()
        except StoreError as error:
            return str(error)
        return None

    def _run(self) -> None:
        try:
            self._trouble = self._trouble_of(self._on_turn)
            while not self._is_over.wait(self.lease.duration_s / RENEWALS):
                self.turn()
        finally:
            if not self._is_over.is_set():
                self._lost = "the thread that renews the lease has died; its traceback says why"


def new_record(run_id: str, now: float, duration_s: float) -> LeaseRecord:
    return LeaseRecord(
        run_id=run_id,
        owner=LeaseOwner(socket.gethostname(), os.getpid()),
        taken_at=utc_iso(now),
        renewed_at=utc_iso(now),
        expires_at=utc_iso(now + duration_s),
        is_released=False,
    )
