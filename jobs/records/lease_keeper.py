"""A thread that keeps a driver's lease alive while the driver works.

Decides when the lease is renewed, and that its end is bounded; `lease` decides what that means.
"""

import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Self

from jobs.errors import LeaseLostError, StoreError
from jobs.records.lease import Lease
from jobs.side_thread import SideThread

# The lease of a driver that was asked to stop and may be killed: `ray job stop` waits only for 3 s.
SHORT_S = 6.0
RENEWALS = 3  # in one duration, so that two may fail before the lease expires


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
        try:
            self._trouble = self._trouble_of(self._on_tick)
            while not self._is_over.is_set():
                if self._woken.wait(self.lease.duration_s / RENEWALS):
                    self._woken.clear()
                if not self._is_over.is_set():
                    self.tick()
            self._trouble = self._trouble_of(self._on_tick)
        finally:  # also if this thread dies, so that the next driver need not wait
            self._trouble = self._trouble_of(self._release) or self._trouble
