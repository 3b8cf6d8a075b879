"""`nagfarm status`: print or watch how far an output is, its clips in flight, its last failures."""

import argparse
from dataclasses import dataclass

from rich.console import Console

from jobs.cli.pattern.command import EXIT_OK, EXIT_STOPPED, Command, Context, OutputOptions
from jobs.cli.pattern.wording import damaged_text, first_line, table_lines
from jobs.costs.wording import cost_text
from jobs.ending import stopped_by_signals
from jobs.errors import RefusedError, StoppedError
from jobs.escaping import json_text
from jobs.overview.output_status import AT_WORK, OutputStatus, is_active, read_output_status
from jobs.overview.run_costs import OutputCost, read_output_cost
from jobs.records.lease_record import LeaseRecord, seconds_of
from jobs.records.run_status import ClipInFlight, KindStatus, RunStatus
from jobs.records.schema import FailureRecord
from jobs.records.strict_json import from_dataclass
from jobs.run.progress.console import print_log, print_plain
from jobs.run.progress.in_flight import stage_text
from jobs.run.progress.loads import loading_text
from jobs.run.progress.long_work import long_work
from jobs.store.store import Store
from jobs.text import counted, duration
from jobs.watch.frame import TerminalScreen
from jobs.watch.lines import JsonScreen, LineScreen
from jobs.watch.watch import watch
from jobs.watch.wording import deadline_text, kind_size, left_text, run_state_text

MAX_CLIPS, MAX_KINDS = 20, 20  # in the tables
KIND_COLUMNS = ("model", "size", "devices", "left", "an hour", "seconds each")


@dataclass(frozen=True)
class StatusOptions(OutputOptions):
    """The options of `nagfarm status`."""

    json: bool
    watch: bool
    stay: bool

    @classmethod
    def add_arguments(cls, parser: argparse.ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "--json",
            action="store_true",
            help="print the status.json of the newest run, exactly as it is in the output; with "
            "--watch each new one as one line",
        )
        parser.add_argument(
            "--watch",
            action="store_true",
            help="go on showing the newest run until it ends, and end with its exit code",
        )
        parser.add_argument(
            "--stay", action="store_true", help="with --watch: go on with the next run, too"
        )


def run(options: StatusOptions, context: Context) -> int:
    if options.stay and not options.watch:
        raise RefusedError("--stay needs --watch")
    store = options.store()
    if options.watch:
        return _watch(store, options, context)
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


def _watch(store: Store, options: StatusOptions, context: Context) -> int:
    """Watch the newest run of an output, and return the exit code of that run."""
    console, errors = context.console, Console(stderr=True)
    try:
        with stopped_by_signals():
            if options.json:
                screen = JsonScreen(context.say_json, lambda line: print_log(errors, line))
                return watch(store, screen, stays=options.stay)
            if console.is_terminal and not console.is_dumb_terminal:
                with TerminalScreen(console) as terminal:
                    return watch(store, terminal, stays=options.stay)
            lines = LineScreen(lambda line: print_log(console, line))
            return watch(store, lines, stays=options.stay)
    except StoppedError:
        print_plain(errors, "no longer watching; nothing else was stopped")
        return EXIT_STOPPED


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
    elif (run := output.run_by_store) is None:
        lines.append(f"  run          {output.run_id}, without a status so far")
    else:
        lines += run_lines(run, output.lease, now)
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
        *([f"  deadline     {deadline_text(run.deadline, now)}"] if run.deadline else []),
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


def _kind_row(kind: KindStatus) -> tuple[str, ...]:
    rate = "" if kind.clips_per_hour is None else f"{kind.clips_per_hour:,.1f}"
    num_left = kind.num_clips - kind.num_committed - kind.num_quarantined
    seconds = "" if kind.clip_s is None else f"{kind.clip_s:,.1f}"
    return kind.model, kind_size(kind), str(kind.num_devices), f"{num_left:,}", rate, seconds


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
    summary="print or watch how far an output is, the clips in flight and the last failures",
    epilog="""\
examples:
  nagfarm status s3://renders/spring
  nagfarm status s3://renders/spring --json | jq .eta_s
  nagfarm status s3://renders/spring --watch              until the run ends; Ctrl-C stops the watch
  nagfarm status s3://renders/spring --watch --stay       and the runs after it
  nagfarm status s3://renders/spring --watch >> log.txt   a line for each change
  nagfarm status s3://renders/spring --watch --json | jq -c '[.num_committed, .eta_s]'
  nagfarm status s3://renders/spring --watch && nagfarm export s3://renders/spring ./clips

Reads the store alone, so it works from any machine, during a run and after it. A run writes its
status every twenty seconds; a run without a recent heartbeat is dead or cannot reach the store.
--watch ends with the exit code of the run: 0, 3, 4 or 5, as `nagfarm --help` lists them. A run
whose driver has been dead for five minutes counts as stopped (4), and so does a watch that a signal
ends.
""",
    options=StatusOptions,
    run=run,
)
