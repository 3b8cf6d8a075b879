"""Write failures and quarantines to the store in a thread, so that the driver never waits for it.

A write that fails now is repeated later, in order. Workers write the records of committed clips.
"""

import time
from collections.abc import Callable

from jobs.errors import StoreError, StoreUnavailableError
from jobs.records.commit import write_failure, write_quarantine
from jobs.records.damage import is_committed
from jobs.records.schema import FailureRecord, QuarantineRecord, utc_iso
from jobs.schedule.retry import Decision, Quarantine
from jobs.side_thread import SideQueue
from jobs.store.store import Store
from jobs.types import ClipFailed

PAUSE_S = 5.0  # between writes; the store's client has already retried each of them for long


class FailureWriter:
    """The failures of one run, on their way to the store.

    Args:
        store: the store of the run.
        run_id: the run that the failures belong to.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self.refused: StoreError | None = None  # why the store refused a write for good
        self._queue = SideQueue[tuple[ClipFailed, Decision, str]]("failure-writer", self._write_all)

    def add(self, failed: ClipFailed, decision: Decision) -> None:
        """Queue a failure and return at once.

        With `Quarantine` the clip is also quarantined, unless a record of it exists by then.
        """
        self._queue.add((failed, decision, utc_iso(time.time())))

    def check(self) -> None:
        """Raise if failures are written no longer; the driver calls it in its loop.

        Raises:
            StoreError: the store refused a write for good.
            SideThreadError: the thread has died.
        """
        self._queue.check()
        if self.refused is not None:
            raise self.refused

    def close(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> int:
        """Wait until all failures are written.

        Args:
            timeout_s: the longest wait, in seconds.
            is_enough: polled during the wait; True ends it.

        Returns:
            The number of failures that were not written and will not be.
        """
        return len(self._queue.close(timeout_s, is_enough))

    def _write_all(self) -> None:
        for entry in self._queue:
            try:
                self._write(*entry)
            except StoreUnavailableError:
                self._queue.pause(PAUSE_S)
            except StoreError as error:
                self.refused = error
                return
            else:
                self._queue.done()

    def _write(self, failed: ClipFailed, decision: Decision, failed_at: str) -> None:
        write_failure(self._store, FailureRecord.of(failed, self._run_id, failed_at))
        # a worker may die after its commit and before its answer
        if isinstance(decision, Quarantine) and not is_committed(self._store, failed.clip_id):
            write_quarantine(
                self._store, QuarantineRecord.of(failed, self._run_id, decision.reason, failed_at)
            )
