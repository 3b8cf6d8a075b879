"""The newest run of an output as its store shows it, and whether that run has ended.

Decides the exit code of a run by its last status. Reads little: no
listing of clips or records, so that it may be read every few seconds.
"""

import contextlib
from dataclasses import dataclass

from jobs.ending import ExitCode
from jobs.errors import DeadlineReachedError, ObjectMissingError
from jobs.overview.output_status import AT_WORK, STALE_S, by_store, modified_at, newest_run
from jobs.records.keys import PREFIXES, STATUS_FILE, run_key
from jobs.records.lease_record import LeaseRecord, current_lease, seconds_of
from jobs.records.run_status import RunStatus, read_status
from jobs.store.store import Store
from jobs.text import counted
from jobs.watch.wording import run_state_text

DEAD_AFTER_S = 300.0  # without a lease; time for a service manager to start the driver again


@dataclass(frozen=True)
class Seen:
    """The newest run of an output, at one moment.

    Args:
        run_id: None if there never was a run.
        run: its last status; None if it has written none so far.
        written_at: time of that status by the store's clock, in seconds since 1970; None if it is
            unknown.
        at_s: moment of reading, by the store's clock.
    """

    uri: str
    run_id: str | None
    run: RunStatus | None
    written_at: float | None
    lease: LeaseRecord | None
    at_s: float

    @property
    def by_store(self) -> RunStatus | None:
        """The status with the time of the store's clock, as far as it is known."""
        return self.run and by_store(self.run, self.written_at)


@dataclass(frozen=True)
class RunEnd:
    """The end of a run, as the store shows it.

    Args:
        text: one line for people.
        code: exit code of the run; of a dead one the code of a run that was stopped.
    """

    run_id: str
    text: str
    code: ExitCode


def read_seen(store: Store) -> Seen:
    """Read the newest run of an output.

    Raises:
        StoreError: the store does not answer, or an object cannot be read.
    """
    run_id = newest_run(store.entries(PREFIXES["run file"]))
    run, written_at = None, None
    if run_id is not None:
        with contextlib.suppress(ObjectMissingError):
            run = read_status(store, run_id)
            written_at = modified_at(store, run_key(run_id, STATUS_FILE))
    return Seen(store.uri, run_id, run, written_at, current_lease(store), store.now())


def end_of(seen: Seen, now: float) -> RunEnd | None:
    """Return the end of a run; None if it goes on, has not begun, or may still go on.

    Args:
        now: the store's time, in seconds since 1970.
    """
    run = seen.by_store
    if run is None or (run.state in AT_WORK and not _is_dead(run, seen.lease, now)):
        return None
    code = _code_of(run)
    num_there = run.num_done_before + run.num_committed
    clips = f"{num_there:,} of {counted(run.num_clips, 'clip')} are committed"
    text = f"run {run.run_id}: {run_state_text(run, seen.lease, now)}; {clips}; exit code {code:d}"
    return RunEnd(run.run_id, text, code)


def _code_of(run: RunStatus) -> ExitCode:
    """Return the exit code of the `render` whose last status this is."""
    if run.state == "finished":
        # a clip that is neither there nor left to start is quarantined or damaged
        is_whole = run.num_done_before + run.num_committed >= run.num_clips
        return ExitCode.OK if is_whole else ExitCode.UNFINISHED
    is_late = run.stop is not None and run.stop.error_type == DeadlineReachedError.__name__
    return ExitCode.DEADLINE if run.state == "stopped" and is_late else ExitCode.STOPPED


def _is_dead(run: RunStatus, lease: LeaseRecord | None, now: float) -> bool:
    """Return True if no driver has been at work for minutes."""
    if lease is None:
        return now - seconds_of(run.updated_at) > STALE_S + DEAD_AFTER_S
    if lease.is_alive(now):  # the run's own, or that of a run which has written nothing yet
        return False
    ended_s = seconds_of(lease.renewed_at if lease.is_released else lease.expires_at)
    return now - ended_s > DEAD_AFTER_S
