"""The right to write to an output: a lease in the store, held by one driver at a time.

Decides which driver holds an output, and when a driver has lost it; `lease_record` decides when a
lease is alive. A lease saves work and guards no clip: even with two drivers, each clip gets one
record. Loads without torch or Ray.

Leases are numbered, so that a driver can tell that it has lost the output. Lease number N lies
under `lease/<N as ten digits>.json`. A driver takes the output by writing the number after the
highest one, only if that object does not exist; from then on it alone writes that object. It has
lost the output when a higher number exists.

The highest number is never removed, not even when its driver releases the lease. Otherwise the next
driver would begin again at 1, and a driver that was thought dead could take that 1 for its own.

A driver holds a number only after it has listed the numbers once more. It may have slept since its
first look, while two others took the output and the second removed the first one's number; then it
has just written a number for the second time. In that case a higher number exists, because only the
holder of a higher number removes a lower one.
"""

import contextlib
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

from jobs.errors import (
    LeaseHeldError,
    LeaseLostError,
    ObjectExistsError,
    ObjectMissingError,
    StoreError,
)
from jobs.records.commit import JSON
from jobs.records.keys import lease_key
from jobs.records.lease_record import (
    LeaseOwner,
    LeaseRecord,
    described,
    epochs,
    refuse_if_alive,
    refuse_if_last,
)
from jobs.records.schema import utc_iso
from jobs.store.store import Store

MAX_RACES = 10  # lost in a row before a driver stops trying; another driver wins each of them
Clock = Callable[[], float]


@dataclass(frozen=True)
class Lease:
    """The right to write to an output until `duration_s` after the last renewal."""

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
        now: Clock | None = None,
    ) -> Self:
        """Take a free output: one that was never leased, or whose lease is released or expired.

        Args:
            duration_s: seconds until the lease expires without a renewal.
            is_takeover: take the output from the live driver that holds it now, too; a third
                driver that takes it meanwhile keeps it.
            now: the clock by which leases expire; the store's if None.

        Raises:
            LeaseHeldError: when another driver holds the output.
            LeaseUnusableError: when its lease cannot be read, or no higher number exists.
            StoreError: when the store refuses or does not answer.
        """
        now = now or store.now
        for race in range(MAX_RACES):
            highest, time_s = max(epochs(store), default=0), now()
            refuse_if_last(store, highest)
            if highest and not (is_takeover and race == 0):
                refuse_if_alive(store, highest, time_s)
            lease = cls(store, highest + 1, new_record(run_id, time_s, duration_s), duration_s, now)
            if not lease._is_created():
                continue
            # Dated again: the first write may have made the folder whose clock this is.
            lease = replace(lease, taken=new_record(run_id, now(), duration_s))
            lease._write(lease.taken)
            if not lease._highest_above():
                with contextlib.suppress(StoreError):  # each renewal removes them again
                    lease._remove_lower()
                return lease
        raise LeaseHeldError(
            f"other drivers took {store.uri} {MAX_RACES} times in a row; find out which they are"
        )

    def renew(self) -> None:
        """Extend the lease by `duration_s`, even if it has expired and no driver took the output.

        Raises:
            LeaseLostError: when another driver has taken the output.
            StoreError: when the store refuses or does not answer. Calling again is safe.
        """
        now = self.now()
        self._write(
            replace(self.taken, renewed_at=utc_iso(now), expires_at=utc_iso(now + self.duration_s))
        )
        # After the write, which may have taken long.
        if highest := self._highest_above():
            raise LeaseLostError(
                f"another driver has taken this output{described(self.store, highest)}; "
                "this driver stops, and its committed clips stay"
            )
        self._remove_lower()

    def release(self) -> None:
        """Free the output at once. The object stays, because its number must not be used again."""
        now = utc_iso(self.now())
        self._write(replace(self.taken, renewed_at=now, expires_at=now, is_released=True))

    def _is_created(self) -> bool:
        """Write the lease for the first time; return False if another lease has its number."""
        content = self.taken.to_json()
        try:
            self.store.put_if_absent(lease_key(self.epoch), content, JSON)
        except ObjectExistsError:
            # It may be this lease: the client writes again after a lost answer.
            try:
                return self.store.get(lease_key(self.epoch)) == content
            except ObjectMissingError:
                return False
        return True

    def _write(self, record: LeaseRecord) -> None:
        self.store.put(lease_key(self.epoch), record.to_json(), JSON)

    def _highest_above(self) -> int:
        """Return the highest number if it is above this lease's; else 0."""
        highest = max(epochs(self.store), default=0)
        return highest if highest > self.epoch else 0

    def _remove_lower(self) -> None:
        """Remove lower numbers, which their drivers may have written before noticing the loss."""
        for epoch in epochs(self.store):
            if epoch < self.epoch:
                self.store.delete(lease_key(epoch))


def new_record(run_id: str, now: float, duration_s: float) -> LeaseRecord:
    return LeaseRecord(
        run_id=run_id,
        owner=LeaseOwner(socket.gethostname(), os.getpid()),
        taken_at=utc_iso(now),
        renewed_at=utc_iso(now),
        expires_at=utc_iso(now + duration_s),
        is_released=False,
    )
