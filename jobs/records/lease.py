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
import threading
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
from jobs.side_thread import SideThread
from jobs.store.store import Store

# The lease of a driver that was asked to stop and may be killed: `ray job stop` waits only for 3 s.
SHORT_S = 6.0
RENEWALS = 3  # in one duration, so that two may fail before the lease expires
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
            LeaseHeldError: when another driver holds the output, or no higher number exists.
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


class LeaseKeeper:
    """A thread that renews a lease inside a `with` block and releases it at the end of the block.

    An error of the store does not lose the lease: the thread tries again at its next tick. All that
    it writes at the end is written in the thread too, so that neither a signal nor a store that
    does not answer keeps the driver from ending.

    Args:
        on_tick: called at the start, after each renewal and before the release, in the keeper's
            thread.
    """

    def __init__(self, lease: Lease, on_tick: Callable[[], None] | None = None) -> None:
        self.lease = lease
        self.end_s = lease.duration_s  # the longest that the end of the block may take
        self._on_tick = on_tick
        self._lost: str | None = None
        self._trouble: str | None = None
        self._is_over = threading.Event()
        self._woken = threading.Event()
        self._thread = SideThread("lease", self._run)

    @property
    def is_lost(self) -> bool:
        return self._lost is not None

    @property
    def trouble(self) -> str | None:
        """The store's error at the last turn; None if there was none."""
        return self._trouble

    def check(self) -> None:
        """Raise if the lease is kept no longer; the driver calls it in its loop.

        Raises:
            LeaseLostError: another driver has taken the output.
            SideThreadError: the thread has died.
        """
        self._thread.check()
        if self._lost is not None:
            raise LeaseLostError(self._lost)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def shorten(self) -> None:
        """Let the lease expire within `SHORT_S` of the last renewal, as this process may be killed.

        The thread renews it as before, only more often. May be called again.
        """
        if self.lease.duration_s > SHORT_S:
            self.lease = replace(self.lease, duration_s=SHORT_S)
            self._woken.set()

    def release(self) -> None:
        """Release the lease before the end of the block. May be called again."""
        self._is_over.set()
        self._woken.set()
        self._thread.join(self.end_s)
        if self._thread.is_alive():
            self._trouble = f"the store did not answer within {self.end_s:g} s"

    def tick(self) -> None:
        """Renew once, unless the lease is lost, and call `on_tick`."""
        trouble = self._trouble_of(self._renew)
        self._trouble = self._trouble_of(self._on_tick) or trouble

    def _renew(self) -> None:
        if self._lost is None:
            try:
                self.lease.renew()
            except LeaseLostError as error:
                self._lost = str(error)

    def _release(self) -> None:
        if self._lost is None:
            self.lease.release()

    def _trouble_of(self, action: Callable[[], None] | None) -> str | None:
        try:
            if action is not None:
                action()
        except StoreError as error:
            return str(error)
        return None

    def _run(self) -> None:
        self._trouble = self._trouble_of(self._on_tick)
        while not self._is_over.is_set():
            if self._woken.wait(self.lease.duration_s / RENEWALS):
                self._woken.clear()
            if not self._is_over.is_set():
                self.tick()
        trouble = self._trouble_of(self._on_tick)
        self._trouble = self._trouble_of(self._release) or trouble


def new_record(run_id: str, now: float, duration_s: float) -> LeaseRecord:
    return LeaseRecord(
        run_id=run_id,
        owner=LeaseOwner(socket.gethostname(), os.getpid()),
        taken_at=utc_iso(now),
        renewed_at=utc_iso(now),
        expires_at=utc_iso(now + duration_s),
        is_released=False,
    )
