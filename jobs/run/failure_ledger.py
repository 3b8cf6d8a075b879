"""Writes failures and quarantine to the store, in a thread of its own: the driver never waits for the store.

Decides that what cannot be written now is written later, in order. Records of clips are the workers' business.
"""

import threading
import time
from collections import deque
from collections.abc import Callable

from jobs.errors import StoreError, StoreUnavailableError
from jobs.records.commit import write_failure, write_quarantine
from jobs.records.keys import record_key
from jobs.records.schema import FailureRecord, QuarantineRecord, utc_iso
from jobs.schedule.retry import Decision, Quarantine
from jobs.store.store import Store
from jobs.types import ClipFailed

PAUSE_S = 5.0  # between attempts, each of which is tried for long by the store's client
LOOK_S = 0.2


class FailureLedger:
    """What failed in one run.

    Args:
        store: of the run.
        run_id: under which it is written.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self._run_id = run_id
        self._waiting: deque[tuple[ClipFailed, Decision, str]] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._is_abandoned = False
        self._thread = threading.Thread(target=self._run, name="failure-ledger", daemon=True)
        self._thread.start()
        self.refused: StoreError | None = None  # the store will not take what it is given

    def add(self, failed: ClipFailed, decision: Decision) -> None:
        """Returns at once. With `Quarantine` the clip is in quarantine, unless it is committed after all."""
        with self._changed:
            self._waiting.append((failed, decision, utc_iso(time.time())))
            self._changed.notify()

    def close(self, timeout_s: float, is_enough: Callable[[], bool] = lambda: False) -> int:
        """Waits for what is still to be written.

        Args:
            is_enough: is asked now and then, and ends the waiting.

        Returns:
            How many failures were not written in that time, and are not any more.
        """
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        deadline = time.monotonic() + timeout_s
        while (
            self._thread.is_alive()
            and not is_enough()
            and (left_s := deadline - time.monotonic()) > 0
        ):
            self._thread.join(min(left_s, LOOK_S))
        with self._changed:
            self._is_abandoned = True
            self._changed.notify()
            return len(self._waiting)

    def _run(self) -> None:
        is_over = False
        try:
            self._write_all()
            is_over = True
        finally:
            if not is_over:
                self.refused = StoreError(
                    "the thread that writes failures has died; its traceback says why"
                )

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._is_closing)
                if not self._waiting or self._is_abandoned:
                    return
                entry = self._waiting[0]
            try:
                self._write(*entry)
            except StoreUnavailableError:
                with self._changed:
                    self._changed.wait_for(lambda: self._is_abandoned, PAUSE_S)
                continue
            except StoreError as error:
                self.refused = error
                return
            with self._changed:
                self._waiting.popleft()

    def _write(self, failed: ClipFailed, decision: Decision, failed_at: str) -> None:
        write_failure(self._store, FailureRecord.of(failed, self._run_id, failed_at))
        # a worker may have died between its commit and its answer
        if isinstance(decision, Quarantine) and not self._store.exists(record_key(failed.clip_id)):
            write_quarantine(
                self._store, QuarantineRecord.of(failed, self._run_id, decision.reason, failed_at)
            )
