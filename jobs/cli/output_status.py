"""What an output looks like right now: what is committed and given up, and what its newest run says of itself.

Decides what people are told, above all whether the run's last word is still to be believed. Loads without torch or Ray.
"""

import contextlib
import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.errors import ObjectMissingError, RecordError
from jobs.plan.plan import counted
from jobs.records.commit import committed_ids, quarantined_ids, read_as
from jobs.records.keys import PREFIXES, RUN_FILE, list_objects, parse_key
from jobs.records.lease_record import LeaseRecord, current_lease, seconds_of
from jobs.records.run_status import ClipInFlight, RunStatus, read_status
from jobs.records.schema import FailureRecord
from jobs.run.in_flight import where
from jobs.store.store import Store
from jobs.store.uri import StoredObject

MAX_FAILURES = 5
MAX_CLIPS = 20  # in flight, that are shown
MAX_MESSAGE = 200  # characters
SILENT_S = 60.0  # without a word, a run that has no lease is given up for dead
AT_WORK = ("rendering", "draining")


@dataclass(frozen=True)
class OutputStatus:
    """What was found in an output.

    Args:
        run_id: of the newest run; None where there never was one.
        run: what that run says of itself; None where it has not said anything that can be read.
        trouble: what could not be read.
    """

    uri: str
    num_committed: int
    num_quarantined: int
    num_failures: int
    run_id: str | None
    run: RunStatus | None
    lease: LeaseRecord | None
    last_failures: tuple[FailureRecord, ...]
    trouble: tuple[str, ...]


def read_output_status(store: Store) -> OutputStatus:
    """Looks at an output, of which nothing needs to be there."""
    trouble: list[str] = []
    run_id, run, lease = newest_run(store.entries(PREFIXES["run file"])), None, None
    try:
        with contextlib.suppress(ObjectMissingError):
            run = read_status(store, run_id) if run_id is not None else None
    except RecordError as error:
        trouble.append(str(error))
    try:
        lease = current_lease(store)
    except RecordError as error:
        trouble.append(str(error))
    failures = [stored for _, stored in list_objects(store, "failure")]
    newest = heapq.nlargest(MAX_FAILURES, failures, key=lambda stored: stored.modified_at)
    last_failures: list[FailureRecord] = []
    for stored in newest:
        try:
            last_failures.append(read_as(store, stored.key, FailureRecord.from_json))
        except RecordError as error:
            trouble.append(str(error))
    return OutputStatus(
        uri=store.uri,
        num_committed=len(committed_ids(store)),
        num_quarantined=len(quarantined_ids(store)),
        num_failures=len(failures),
        run_id=run_id,
        run=run,
        lease=lease,
        last_failures=tuple(
            sorted(last_failures, key=lambda failure: failure.failed_at, reverse=True)
        ),
        trouble=tuple(trouble),
    )


def newest_run(entries: Iterable[StoredObject]) -> str | None:
    """The run whose run.json was written last."""
    started = [
        (stored.modified_at, parsed.run_id)
        for stored in entries
        if (parsed := parse_key(stored.key)) and parsed.filename == RUN_FILE
    ]
    return max(started)[1] if started else None


def is_believed(run: RunStatus, lease: LeaseRecord | None, now: float) -> bool:
    """Whether a run that said it is at work still is, as far as can be told from here."""
    if lease is None:
        return now - seconds_of(run.updated_at) <= SILENT_S
    return lease.run_id == run.run_id and lease.is_alive(now)


def last_word(run: RunStatus, lease: LeaseRecord | None, now: float) -> str:
    """What has become of a run, in words."""
    silent_s = now - seconds_of(run.updated_at)
    if run.state not in AT_WORK:
        return f"{run.state} {duration(silent_s)} ago"
    if is_believed(run, lease, now):
        if lease is not None and silent_s > seconds_of(lease.expires_at) - seconds_of(
            lease.renewed_at
        ):
            return (
                f"{run.state}, but its last word is {duration(silent_s)} old, although its driver is alive: "
                "what it says of clips is out of date"
            )
        return f"{run.state}, last word {duration(silent_s)} ago"
    if lease is not None and lease.run_id != run.run_id:
        return f"{run.state} when last heard of, {duration(silent_s)} ago; another driver has taken this output since"
    if lease is not None and lease.is_released:
        return f"its driver ended {duration(now - seconds_of(lease.renewed_at))} ago without a last word"
    heard = max(run.updated_at, lease.renewed_at) if lease is not None else run.updated_at
    return f"no word for {duration(now - seconds_of(heard))}: the driver is dead or cut off; render goes on from here"


def lease_line(lease: LeaseRecord | None, now: float) -> str:
    if lease is None:
        return "nobody's"
    if lease.is_released:
        return f"free; last {lease}"
    if lease.is_alive(now):
        return f"{lease}; renewed {duration(now - seconds_of(lease.renewed_at))} ago"
    return f"free, over since {lease.expires_at}; last {lease}"


def output_lines(output: OutputStatus, now: float) -> list[str]:
    """The whole answer as plain text."""
    remedy = f"; nagfarm retry {output.uri} lifts that" if output.num_quarantined else ""
    lines = [
        output.uri,
        f"  committed  {counted(output.num_committed, 'clip')}",
        f"  given up   {counted(output.num_quarantined, 'clip')}{remedy}",
        f"  failures   {counted(output.num_failures, 'attempt')}",
        f"  lease      {lease_line(output.lease, now)}",
    ]
    if output.run_id is None:
        lines.append("  run        none so far")
    elif output.run is None:
        lines.append(f"  run        {output.run_id}, which has not said yet how it goes")
    else:
        lines += run_lines(output.run, output.lease, now)
    if output.last_failures:
        lines += ["", f"last failures, of {output.num_failures:,}:"]
        lines += columns([failure_row(failure) for failure in output.last_failures])
    lines += [f"cannot be read: {one}" for one in output.trouble]
    return [plain(line) for line in lines]


def run_lines(run: RunStatus, lease: LeaseRecord | None, now: float) -> list[str]:
    is_at_work = run.state in AT_WORK and is_believed(run, lease, now)
    rate = (
        f"{run.clips_per_hour:,.0f} clips an hour"
        if run.clips_per_hour is not None
        else "not known yet"
    )
    if is_at_work and run.eta_s is not None:
        rate += f", about {duration(run.eta_s)} left"
    since = f"{run.num_committed:,} committed, {run.num_quarantined:,} given up, {run.num_failures:,} attempts failed"
    lines = [
        f"  run        {run.run_id}: {last_word(run, lease, now)}",
        f"  planned    {counted(run.num_clips, 'clip')}, {run.num_done_before:,} of them done before; since: {since}",
        f"  workers    {run.num_workers:,}, {run.num_workers_lost:,} lost so far",
        f"  rate       {rate}, after {duration(run.elapsed_s)}",
    ]
    if run.in_flight:
        lines += ["", "in flight:" if is_at_work else "in flight when last heard of:"]
        lines += columns(
            [("clip", "id", "worker", "at", "for"), *map(clip_row, run.in_flight[:MAX_CLIPS])]
        )
        if len(run.in_flight) > MAX_CLIPS:
            lines.append(f"  and {len(run.in_flight) - MAX_CLIPS:,} more")
    return lines


def clip_row(clip: ClipInFlight) -> tuple[str, ...]:
    return clip.name, clip.clip_id, clip.worker, where(clip), duration(clip.running_s)


def failure_row(failure: FailureRecord) -> tuple[str, ...]:
    reason = f"{failure.failure_class}: {failure.error_type}: {first_line(failure.message)}"
    return failure.failed_at, failure.name, failure.clip_id, reason


def columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def duration(seconds: float) -> str:
    """As people say it, in the largest unit that it fills twice. A clock that is behind makes no time negative."""
    left_s = max(seconds, 0.0)
    for unit, size_s in (("days", 86_400), ("h", 3600), ("min", 60)):
        if left_s >= 2 * size_s:
            return f"{left_s / size_s:.0f} {unit}"
    return f"{left_s:.0f} s"


def first_line(message: str) -> str:
    line = message.strip().partition("\n")[0]
    return line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]}..."


def plain(text: str) -> str:
    """Without what could move a terminal's cursor: strangers name clips and write messages."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
