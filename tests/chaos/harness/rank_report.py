"""The table of docs/measurements/parallel-faults.md and its raw numbers.

Several processes may write numbers; the table shows all sessions whose store was audited.
"""

import fcntl
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.harness.report import paragraph, put_between_markers, write_numbers

SESSIONS = "sessions"
COORDINATOR = "coordinator"  # every other sampled process is a rank
LEAST_REBUILDS = 5  # fewer rebuilds of a process say nothing about its growth
BROKEN = ("lost", "duplicated", "mismatched", "orphans")
HEAD = (
    "group", "signal", "to rank", "faults", "hit clips committed", "all clips committed", "lost",
    "duplicated", "mismatched", "left running", "other ranks kept", "renders again: median",
    "at most", "hit clip committed: median", "at most", "descriptors per rebuild: other ranks",
    "coordinator", "load average",
)  # fmt: skip


def read_sessions(report: Path) -> dict[str, Any]:
    """Return the numbers written so far, by session name."""
    path = report.with_suffix(".json")
    return json.loads(path.read_text()).get(SESSIONS, {}) if path.exists() else {}


def write_session(report: Path, name: str, numbers: Mapping[str, Any]) -> None:
    """Replace the numbers of one session, and write the table anew."""
    report.parent.mkdir(parents=True, exist_ok=True)
    with report.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sessions = read_sessions(report) | {name: numbers}
        write_numbers(report.with_suffix(".json"), SESSIONS, sessions)
        put_between_markers(report.with_suffix(".md"), "ranks", table(list(sessions.values())))


def table(sessions: Sequence[Mapping[str, Any]]) -> str:
    """Return a line of sums, and one row for each session that is over."""
    over = [session for session in sessions if session["audit"] is not None]
    over.sort(key=lambda one: (one["size"], one["signal"], one["is_double"], one["rank"]))
    rows = [HEAD, tuple("---" if index < 2 else "---:" for index in range(len(HEAD)))]
    rows += [row(session) for session in over]
    return "\n".join([paragraph(sums(over)), "", *(f"| {' | '.join(cells)} |" for cells in rows)])


def sums(sessions: Sequence[Mapping[str, Any]]) -> str:
    faults = [(session, fault) for session in sessions for fault in session["faults"]]
    num_others = sum(fault["num_others"] for _, fault in faults)
    num_kept = sum(fault["num_kept"] for _, fault in faults)
    counts = {name: sum(len(session["audit"][name]) for session in sessions) for name in BROKEN}
    return (
        f"{sum(session['num_faults'] for session in sessions)} faults in {len(sessions)} runs: "
        f"{len(faults)} hit clips committed in the end, {counts['lost']} clips lost, "
        f"{counts['duplicated']} duplicated, {counts['mismatched']} mismatched, "
        f"{counts['orphans']} processes left running; "
        f"{num_kept} of {num_others} other ranks kept their process, "
        f"{sum(fault['is_released'] for _, fault in faults)} groups were released whole."
    )


def row(session: Mapping[str, Any]) -> tuple[str, ...]:
    audit, faults = session["audit"], session["faults"]
    growth = growth_per_rebuild(session)
    ranks = [value for name, values in growth.items() if name != COORDINATOR for value in values]
    is_clean = not (session["problems"] or any(audit[name] for name in BROKEN))
    name = f"{session['model']}, {session['parallel']}"
    num_left = len(audit["orphans"]) + sum(fault["num_left_behind"] for fault in faults)
    num_kept = sum(fault["num_kept"] for fault in faults)
    return (
        name if is_clean else f"**{name}: NOT AS EXPECTED**",
        session["signal"],
        f"{session['rank']}, then any" if session["is_double"] else f"{session['rank']}",
        f"{session['num_faults']}",
        f"{len(faults)}",  # a fault is written down once its clip is committed
        f"{audit['num_committed']} of {audit['num_planned']}",
        *(f"{len(audit[name])}" for name in ("lost", "duplicated", "mismatched")),
        f"{num_left}",
        f"{num_kept} of {sum(fault['num_others'] for fault in faults)}",
        *median_and_most([fault["renders_after_s"] for fault in faults]),
        *median_and_most([fault["committed_after_s"] for fault in faults]),
        most(ranks),
        most(growth.get(COORDINATOR, [])),
        f"{session['load_average']:.0f}",
    )


def median_and_most(values: Sequence[float]) -> tuple[str, str]:
    return (f"{statistics.median(values):.1f} s", f"{max(values):.1f} s") if values else ("-", "-")


def most(growth: Sequence[float]) -> str:
    return f"{max(growth):+.2f}" if growth else "-"


def growth_per_rebuild(session: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the growth of open descriptors from one fault to the next, by the process's name.

    Only processes that lived through at least `LEAST_REBUILDS` faults count.
    """
    samples = [fault["files"] for fault in session["faults"]] + [session["files_at_end"]]
    counts: dict[tuple[str, int], list[int]] = {}
    for sample in samples:
        for name, (pid, count) in sample.items():
            counts.setdefault((name, pid), []).append(count)
    found: dict[str, list[float]] = {}
    for (name, _), values in counts.items():
        if len(values) > LEAST_REBUILDS:
            found.setdefault(name, []).append((values[-1] - values[0]) / (len(values) - 1))
    return found
