"""`nagfarm status`: print how far an output is, the clips in flight and the last failures."""

import argparse
from dataclasses import dataclass, replace

from jobs.cli.outputs.output_status import AT_WORK, OutputStatus, is_active, read_output_status
from jobs.cli.pattern.command import EXIT_OK, Command, Context, OutputOptions
from jobs.cli.pattern.wording import damaged_text, first_line, table_lines
from jobs.costs.wording import cost_text
from jobs.errors import RefusedError
from jobs.escaping import json_text
from jobs.overview.run_costs import OutputCost, read_output_cost
from jobs.records.lease_record import LeaseRecord, seconds_of
from jobs.records.run_status import ClipInFlight, KindStatus, RunDeadline, RunStatus
from jobs.records.schema import FailureRecord, utc_iso
from jobs.records.strict_json import from_dataclass
from jobs.run.progress.in_flight import stage_text
from jobs.run.progress.loads import loading_text
from jobs.run.progress.long_work import long_work
from jobs.text import counted, duration

MAX_CLIPS, MAX_KINDS = 20, 20  # in the tables
KIND_COLUMNS = ("model", "size", "devices", "left", "an hour", "seconds each")


@dataclass(frozen=True)
class StatusOptions(OutputOptions):
    """The options of `nagfarm status`."""

    json: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the status.json of the newest run, exactly as it is in the output",
        )


def run(options: StatusOptions, context: Context) -> int:
    store = options.store()
    with long_work(f"listing {store.uri}"):
        found = read_output_status(store)
        cost = read_output_cost(store)
    if not options.json:
        for line in status_lines(found, store.now(), cost):
            context.say(line)
        return EXIT_OK
    if found.run is None:
        raise RefusedError(
            f"no run has written a status to {store.uri} yet; "
            "nagfarm status without --json shows the rest"
        )
    context.say_json(json_text(from_dataclass(found.run), indent=2))
    return EXIT_OK


def status_lines(output: OutputStatus, now: float, cost: OutputCost | None = None) -> list[str]:
    """Return the whole answer as plain text.

    Args:
        now: the store's time, in seconds since 1970.
        cost: cost of all runs of the output.
    """
    remedy = f"; nagfarm retry {output.uri} lifts that" if output.num_quarantined else ""
    lines = [
        output.uri,
        f"  committed    {counted(output.num_committed, 'clip')}",
        *([f"  {damaged_text(output.num_damaged)}"] if output.num_damaged else []),
        *([_names_line(output.num_names)] if output.num_names else []),
        f"  quarantined  {counted(output.num_quarantined, 'clip')}{remedy}",
        f"  failures     {counted(output.num_failures, 'attempt')}",
        *([f"  all runs     {text}"] if cost and (text := _all_runs_text(cost)) else []),
        f"  lease        {lease_text(output.lease, now)}",
    ]
    if output.run_id is None:
        lines.append("  run          none so far")
    elif output.run is None:
        lines.append(f"  run          {output.run_id}, without a status so far")
    else:
        by_store = replace(output.run, updated_at=utc_iso(output.run_written_at))
        lines += run_lines(by_store, output.lease, now)
    if output.last_failures:
        attempts = counted(output.num_failures, "failed attempt")
        lines += ["", f"last {len(output.last_failures)} of {attempts}:"]
        rows = [_failure_row(failure) for failure in output.last_failures]
        lines += [f"  {line}" for line in table_lines((), rows)]
    return [*lines, *(f"cannot be read: {one}" for one in output.trouble)]


def _all_runs_text(cost: OutputCost) -> str | None:
    """Return the cost of an output if more than its newest run has one."""
    text = cost_text(cost.cost)
    if text is None or cost.num_runs < 2:
        return None
    older = f" (without {counted(cost.num_left_out, 'older run')})" if cost.num_left_out else ""
    return f"{counted(cost.num_runs, 'run')}: {text}{older}"


def _names_line(num_names: int) -> str:
    return f"  names        {counted(num_names, 'further name')} of committed clips"


def run_lines(run: RunStatus, lease: LeaseRecord | None, now: float) -> list[str]:
    is_at_work = run.state in AT_WORK and is_active(run, lease, now)
    rate = (
        f"{run.clips_per_hour:,.0f} clips an hour"
        if run.clips_per_hour is not None
        else "not known yet"
    )
    if is_at_work and run.eta_s is not None:
        rate += f", {left_text(run)}"
    before = f"{counted(run.num_clips, 'clip')}, {run.num_done_before:,} of them done before"
    since = (
        f"{run.num_committed:,} committed, {run.num_quarantined:,} quarantined, "
        f"{counted(run.num_failures, 'attempt')} failed"
    )
    lines = [
        f"  run          {run.run_id}: {run_state_text(run, lease, now)}",
        *([f"  output       named for {run.output_day}"] if run.output_day else []),
        *([f"  deadline     {_deadline_text(run.deadline, now)}"] if run.deadline else []),
        f"  planned      {before}; since: {since}",
        f"  workers      {run.num_workers:,}, {run.num_workers_lost:,} lost so far",
        *([f"  devices      {run.busy_share:.1%} busy"] if run.busy_share is not None else []),
        *([f"  cost         {text}"] if (text := cost_text(run.cost)) else []),
        *([f"  waiting      for {run.waiting_for}"] if run.waiting_for else []),
        *([f"  loading      {loading_text(run.loading)}"] if run.loading else []),
        f"  rate         {rate}, after {duration(run.elapsed_s)}",
    ]
    if run.num_log_bytes_dropped:
        dropped = counted(run.num_log_bytes_dropped, "byte")
        lines.append(f"  log          {dropped} could not be written: {run.log_trouble}")
    if run.kinds:
        rows = map(_kind_row, run.kinds[:MAX_KINDS])
        table = table_lines(KIND_COLUMNS, rows, numbers=KIND_COLUMNS[2:])
        lines += ["", "kinds of clip:", *(f"  {line}" for line in table)]
    if run.in_flight:
        lines += ["", "in flight:" if is_at_work else "in flight at the last heartbeat:"]
        rows = map(_clip_row, run.in_flight[:MAX_CLIPS])
        table = table_lines(("clip", "id", "worker", "at", "for"), rows)
        lines += [f"  {line}" for line in table]
        if len(run.in_flight) > MAX_CLIPS:
            lines.append(f"  and {len(run.in_flight) - MAX_CLIPS:,} more")
    return lines


def left_text(run: RunStatus) -> str:
    """Return the likely time that is left of a run, with its range; empty without a pace."""
    if run.eta_s is None or run.eta_low_s is None or run.eta_high_s is None:
        return ""
    low, high = duration(run.eta_low_s), duration(run.eta_high_s)
    return f"about {duration(run.eta_s)} left ({low if low == high else f'{low} to {high}'})"


def _kind_row(kind: KindStatus) -> tuple[str, ...]:
    rate = "" if kind.clips_per_hour is None else f"{kind.clips_per_hour:,.1f}"
    num_left = kind.num_clips - kind.num_committed - kind.num_quarantined
    seconds = "" if kind.clip_s is None else f"{kind.clip_s:,.1f}"
    return kind.model, kind_size(kind), str(kind.num_devices), f"{num_left:,}", rate, seconds


def kind_size(kind: KindStatus) -> str:
    """Return the size of a kind of clip in words, such as "81 x 480x832, 30 steps"."""
    steps = counted(kind.num_inference_steps, "step")
    return f"{kind.num_frames} x {kind.height}x{kind.width}, {steps}"


def run_state_text(run: RunStatus, lease: LeaseRecord | None, now: float) -> str:
    """Return the state of a run in words: at work, ended, dead, or replaced by another driver."""
    age_s = now - seconds_of(run.updated_at)
    age = f"{duration(age_s)} ago"
    reason = f": {run.stop.message}" if run.stop else ""
    if run.state not in AT_WORK:
        return f"{run.state} {age}{reason}"
    if is_active(run, lease, now):
        if lease is not None and age_s > seconds_of(lease.expires_at) - seconds_of(
            lease.renewed_at
        ):
            return (
                f"{run.state}, last status {age}, although its driver is alive: "
                "the clips shown here are stale"
            )
        return f"{run.state}, last heartbeat {age}{reason}"
    if lease is not None and lease.run_id != run.run_id:
        return (
            f"{run.state} at its last heartbeat, {age}; another driver has taken this output since"
        )
    if lease is not None and lease.is_released:
        ended_s = now - seconds_of(lease.renewed_at)
        return f"its driver ended {duration(ended_s)} ago without a final status{reason}"
    last_seen = max(run.updated_at, lease.renewed_at) if lease is not None else run.updated_at
    asked = f"; it had been asked to stop{reason}" if run.stop else ""
    return (
        f"last heartbeat {duration(now - seconds_of(last_seen))} ago: the driver is dead or cannot "
        f"reach the store; render resumes the run{asked}"
    )


def _deadline_text(deadline: RunDeadline, now: float) -> str:
    left_s = seconds_of(deadline.at) - now
    return f"{deadline.at}, " + (f"in {duration(left_s)}" if left_s > 0 else "which is past")


def lease_text(lease: LeaseRecord | None, now: float) -> str:
    if lease is None:
        return "free"
    if lease.is_released:
        return f"free; last held by {lease}"
    if lease.is_alive(now):
        return f"{lease}; renewed {duration(now - seconds_of(lease.renewed_at))} ago"
    return f"free, expired at {lease.expires_at}; last held by {lease}"


def _clip_row(clip: ClipInFlight) -> tuple[str, ...]:
    return clip.name, clip.clip_id, clip.worker, stage_text(clip), duration(clip.running_s)


def _failure_row(failure: FailureRecord) -> tuple[str, ...]:
    reason = f"{failure.failure_class}: {failure.error_type}: {first_line(failure.message)}"
    return failure.failed_at, failure.name, failure.clip_id, reason


COMMAND = Command(
    name="status",
    summary="print how far an output is, the clips in flight and the last failures",
    epilog="""\
examples:
  nagfarm status s3://renders/spring
  nagfarm status s3://renders/spring --json | jq .eta_s

Reads the store alone, so it works from any machine, during a run and after it. A run writes its
status every twenty seconds; a run without a recent heartbeat is dead or cannot reach the store.
""",
    options=StatusOptions,
    run=run,
)
