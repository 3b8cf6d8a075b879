"""A watched run as lines: one for each change in a log, or a JSON object for programs."""

from collections.abc import Callable
from dataclasses import dataclass, field

from jobs.costs.wording import cost_text
from jobs.escaping import json_text
from jobs.overview.output_status import AT_WORK, is_active
from jobs.records.run_status import RunStatus
from jobs.records.strict_json import from_dataclass
from jobs.run.progress.loads import loading_text
from jobs.text import counted, duration
from jobs.watch.watch import View
from jobs.watch.wording import left_text


@dataclass
class LineScreen:
    """Says a line when a number of the run has changed.

    Args:
        say: prints one line.
    """

    say: Callable[[str], None]
    _last: tuple[object, ...] = field(default=(), init=False)

    def show(self, view: View) -> None:
        run = view.seen.run
        if run is None:
            return
        is_at_work = run.state not in AT_WORK or is_active(run, view.seen.lease, view.now)
        change = (
            run.run_id, run.state, run.num_committed, run.num_quarantined, run.num_failures,
            run.num_workers, run.num_workers_lost, run.waiting_for, run.loading, is_at_work,
        )  # fmt: skip
        if change != self._last:
            self._last = change
            self.say(change_line(run, is_at_work=is_at_work))


def change_line(run: RunStatus, *, is_at_work: bool) -> str:
    """Return a run in one line."""
    parts = [
        f"{run.num_done_before + run.num_committed:,} of {counted(run.num_clips, 'clip')}",
        f"{run.num_quarantined:,} quarantined",
        f"{counted(run.num_failures, 'attempt')} failed",
        counted(run.num_workers, "worker")
        + (f" ({run.num_workers_lost:,} lost so far)" if run.num_workers_lost else ""),
    ]
    if run.busy_share is not None:
        parts.append(f"devices {run.busy_share:.1%} busy")
    if (cost := cost_text(run.cost)) is not None:
        parts.append(cost)
    if run.waiting_for:
        parts.append(f"waiting for {run.waiting_for}")
    if run.loading:
        parts.append(f"loading {loading_text(run.loading)}")
    if run.state in AT_WORK and is_at_work and (left := left_text(run)):
        parts.append(left)
    parts.append(f"{duration(run.elapsed_s)} elapsed")
    state = run.state if is_at_work else "no heartbeat"
    return f"run {run.run_id}: {state}, {', '.join(parts)}"


@dataclass
class JsonScreen:
    """Prints each new status.json as one line; everything else goes to stderr.

    Args:
        print_json: prints one document.
        say: prints one line for people.
    """

    print_json: Callable[[str], None]
    say: Callable[[str], None]
    _last: RunStatus | None = field(default=None, init=False)

    def show(self, view: View) -> None:
        run = view.seen.run
        if run is not None and run != self._last:
            self._last = run
            self.print_json(json_text(from_dataclass(run)))
