"""Strike each rank of each group by each signal, again and again, and audit the store.

`python -m tests.chaos.harness.rank_strikes`

Decides the sessions: one for each group, signal and rank, a run of its own with all strikes of that rank, so that the
other ranks live through all of them; and one for each group and signal where strikes come in pairs. What is done is
kept in the report, and another call goes on from there.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from infra.local.s3_server import stop_signal_as_interrupt
from tests.chaos.harness.farm import Farm
from tests.chaos.harness.rank_report import read_sessions, write_session
from tests.chaos.harness.rank_workload import GROUPS, Group, RankWorkload
from tests.chaos.harness.runner import Outcome, Scenario, Scene, play
from tests.chaos.harness.strikes import Strike, Striker

CLIPS_PER_STRIKE = 3  # one that is hit, and what is rendered before the next strike falls
SPARE_CLIPS = 4
SIGNALS = (signal.SIGKILL, signal.SIGSTOP)
SETTINGS = (
    "workers.count=1",
    "stall.heartbeat_interval_s=0.5",
    "stall.heartbeat_timeout_s=6",  # after which a rank that is stopped is taken for frozen
    "workers.load_timeout_s=240",  # after which one that is stopped while it loads is
    "retry.max_stalls=6",  # strikes fall so close together that one clip is there at several
    "retry.max_lost_workers=6",
)


@dataclass(frozen=True)
class Session:
    """All strikes of one kind."""

    group: Group
    number: signal.Signals
    rank: int
    is_double: bool = False

    @property
    def name(self) -> str:
        double = "-double" if self.is_double else ""
        return f"ranks{self.group.size}-{self.number.name.lower()}-rank{self.rank}{double}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Strikes at each rank of groups that render, and audits what they do."
    )
    parser.add_argument(
        "--strikes", type=int, default=20, help="at each rank by each signal (default 20)"
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", choices=sorted(GROUPS), default=sorted(GROUPS)
    )
    parser.add_argument(
        "--signals",
        nargs="+",
        choices=[one.name for one in SIGNALS],
        default=[one.name for one in SIGNALS],
    )
    parser.add_argument(
        "--ranks", type=int, nargs="+", help="these ranks alone; all unless told otherwise"
    )
    parser.add_argument("--double", action="store_true", help="pairs of strikes alone")
    parser.add_argument(
        "--minutes", type=float, default=24 * 60.0, help="begins no further session after these"
    )
    parser.add_argument("--seed", type=int, default=0, help="of every random moment and choice")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="PATH",
        help="keeps PATH.md and PATH.json, such as docs/measurements/parallel-faults",
    )
    options = parser.parse_args()
    sessions = [
        Session(GROUPS[size], signal.Signals[name], rank, is_double)
        for size in options.sizes
        for name in options.signals
        for rank, is_double in [*((rank, False) for rank in range(size)), (0, True)]
        if (options.ranks is None or rank in options.ranks) and (is_double or not options.double)
    ]
    until = time.monotonic() + options.minutes * 60
    is_clean = True
    with stop_signal_as_interrupt():
        for session in sessions:
            if time.monotonic() > until or is_over(session, options.report):
                continue
            is_clean = hold(session, options.strikes, options.seed, options.report) and is_clean
    return 0 if is_clean else 1


def is_over(session: Session, report: Path | None) -> bool:
    """It was held to its end, maybe by another process meanwhile."""
    found = read_sessions(report).get(session.name) if report is not None else None
    return found is not None and found["audit"] is not None


def hold(session: Session, num_strikes: int, seed: int, report: Path | None) -> bool:
    """Holds one session on a farm of its own, writing down each strike as it is over; returns whether all was well."""
    strikes: list[Strike] = []
    end: dict[str, Any] = {}

    def note(outcome: Outcome | None) -> None:
        if report is not None:
            write_session(report, session.name, as_numbers(session, strikes, end, outcome))

    def over(strike: Strike) -> None:
        strikes.append(strike)
        note(None)
        print(
            f"{session.name}: strike {len(strikes)} at step {strike.step}, "
            f"renders after {strike.renders_after_s:.1f} s, "
            f"committed after {strike.committed_after_s:.1f} s, kept {strike.num_kept} of {strike.num_others}, "
            f"attempt {strike.attempt}, "
            f"descriptors { {name: count for name, (_, count) in strike.files.items()} }",
            flush=True,
        )

    def inject(scene: Scene) -> int:
        striker = Striker(scene, session.rank, session.number, over, is_double=session.is_double)
        num_over = striker.strike(num_strikes)
        end.update(num_strikes=striker.num_strikes, files_at_end=striker.sample_files())
        return num_over

    with tempfile.TemporaryDirectory(prefix="nagfarm-ranks-") as folder:
        notes = Path(folder) / "notes"
        notes.mkdir()
        workload = RankWorkload.make(
            CLIPS_PER_STRIKE * num_strikes + SPARE_CLIPS, session.group, notes
        )
        scenario = Scenario(session.name, session.number.name, workload, inject, settings=SETTINGS)
        with Farm(Path(folder), seed, num_nodes=1, node_cpus=session.group.size) as farm:
            outcome = play(scenario, farm, seed)
            log = (Path(folder) / f"{session.name}-0.log").read_text(errors="replace")
    note(outcome)
    for line in (*outcome.problems, *outcome.audit.violations):
        print(f"    {line}", flush=True)
    if not outcome.is_clean:
        print(log, flush=True)
    return outcome.is_clean


def as_numbers(
    session: Session, strikes: list[Strike], end: Mapping[str, Any], outcome: Outcome | None
) -> dict[str, Any]:
    return {
        "model": session.group.model,
        "parallel": str(session.group.parallel),
        "size": session.group.size,
        "signal": session.number.name,
        "rank": session.rank,
        "is_double": session.is_double,
        "strikes": [asdict(strike) for strike in strikes],
        "num_strikes": len(strikes),
        "files_at_end": {},
        **end,
        "audit": None if outcome is None else asdict(outcome.audit),
        "problems": [] if outcome is None else list(outcome.problems),
        "exit_codes": [] if outcome is None else list(outcome.exit_codes),
        "wall_s": None if outcome is None else outcome.wall_s,
        "load_average": os.getloadavg()[1],
    }


if __name__ == "__main__":
    sys.exit(main())
