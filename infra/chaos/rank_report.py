"""The table of docs/parallel-faults.md and its raw numbers.

Decides how strikes are summed up. The numbers are kept as they come, by several processes if need be; the table is
made of all sessions whose store was audited.
"""

import fcntl
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.chaos.report import put_between_markers, write_numbers

SESSIONS = "sessions"
HEAD = (
    "group", "signal", "to rank", "strikes", "hit clips committed", "clips", "lost", "duplicated", "mismatched",
    "left running", "ranks kept", "renders again after", "at most", "clip committed after", "at most",
    "descriptors per rebuild: a rank", "the coordinator",
)  # fmt: skip


def read_sessions(report: Path) -> dict[str, Any]:
    """What was written so far, by the sessions' names."""
    path = report.with_suffix(".json")
    return json.loads(path.read_text()).get(SESSIONS, {}) if path.exists() else {}


def write_session(report: Path, name: str, numbers: Mapping[str, Any]) -> None:
    """Puts one session in the place of what was there of it, and makes the table anew."""
    report.parent.mkdir(parents=True, exist_ok=True)
    with report.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sessions = read_sessions(report) | {name: numbers}
        write_numbers(report.with_suffix(".json"), SESSIONS, sessions)
        put_between_markers(report.with_suffix(".md"), "ranks", table(list(sessions.values())))


def table(sessions: Sequence[Mapping[str, Any]]) -> str:
    """One row for each session that is over."""
    rows = [HEAD, tuple("---" if index < 2 else "---:" for index in range(len(HEAD)))]
    over = [session for session in sessions if session["audit"] is not None]
    rows += [row(session) for session in sorted(over, key=lambda one: (one["size"], one["signal"], one["rank"]))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(session: Mapping[str, Any]) -> tuple[str, ...]:
    audit, strikes = session["audit"], session["strikes"]
    renders = [strike["renders_after_s"] for strike in strikes]
    commits = [strike["committed_after_s"] for strike in strikes]
    growth = growth_per_rebuild(session)
    ranks = [value for name, values in growth.items() if name != "coordinator" for value in values]
    is_clean = not (session["problems"] or any(audit[name] for name in ("lost", "duplicated", "mismatched", "orphans")))
    name = f"{session['model']}, {session['parallel']}"
    return (
        name if is_clean else f"**{name}: NOT AS EXPECTED**",
        session["signal"],
        str(session["rank"]),
        str(len(strikes)),
        str(len(strikes)),  # a strike is over once its clip is
        f"{audit['num_committed']} of {audit['num_planned']}",
        *(str(len(audit[name])) for name in ("lost", "duplicated", "mismatched", "orphans")),
        f"{sum(strike['num_kept'] for strike in strikes)} of {len(strikes) * (session['size'] - 1)}",
        *(f"{value:.1f} s" for value in (statistics.median(renders), max(renders))),
        *(f"{value:.1f} s" for value in (statistics.median(commits), max(commits))),
        f"{max(ranks):+.1f}" if ranks else "-",
        f"{max(growth.get('coordinator', [0.0])):+.1f}",
    )


def growth_per_rebuild(session: Mapping[str, Any]) -> dict[str, list[float]]:
    """By how many descriptors each process grew from one strike to the next, by what it is; those that lived through
    at least `LEAST_REBUILDS`.
    """
    samples = [strike["files"] for strike in session["strikes"]] + [session["files_at_end"]]
    counts: dict[tuple[str, int], list[int]] = {}
    for sample in samples:
        for name, (pid, count) in sample.items():
            counts.setdefault((name, pid), []).append(count)
    found: dict[str, list[float]] = {}
    for (name, _), values in counts.items():
        if len(values) > LEAST_REBUILDS:
            found.setdefault(name, []).append((values[-1] - values[0]) / (len(values) - 1))
    return found


LEAST_REBUILDS = 5
