"""Kill and stop each rank of each group, again and again, and audit the store.

`python -m tests.chaos.harness.rank_suite`

There is one session for each group, signal and rank: a run of its own with all faults of that rank,
so that the other ranks live through all of them. For each group and signal there is one more
session with double faults. The report keeps finished sessions, and another call goes on from there.
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

from infra.local.local_process import stop_signal_as_interrupt
from tests.chaos.harness.farm import Farm
from tests.chaos.harness.rank_faults import RankFault, RankFaultInjector
from tests.chaos.harness.rank_report import read_sessions, write_session
from tests.chaos.harness.rank_workload import GROUPS, RankGroup, RankWorkload
from tests.chaos.harness.runner import Outcome, Scenario, ScenarioRun, run_scenario

CLIPS_PER_FAULT = 3  # the one that is hit, and those rendered before the next fault
SPARE_CLIPS = 4
SIGNALS = (signal.SIGKILL, signal.SIGSTOP)
SETTINGS = (
    "workers.count=1",
    "stall.heartbeat_interval_s=0.5",
    "stall.heartbeat_timeout_s=6",  # after which a stopped rank counts as stalled
    "workers.load_timeout_s=240",  # after which a rank that was stopped while it loads does
    "retry.max_stalls=6",  # faults come so close together that one clip is hit by several
    "retry.max_lost_workers=6",
)


@dataclass(frozen=True)
class Session:
    """All faults of one kind."""

    group: RankGroup
    number: signal.Signals
    rank: int
    is_double: bool = False

    @property
    def name(self) -> str:
        double = "-double" if self.is_double else ""
        return f"ranks{self.group.size}-{self.number.name.lower()}-rank{self.rank}{double}"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Kill and stop the ranks of groups that render, and audit the store."
    )
    parser.add_argument(
        "--faults", type=int, default=20, help="faults of each rank by each signal (default 20)"
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
    parser.add_argument("--ranks", type=int, nargs="+", help="only these ranks (default: all)")
    parser.add_argument("--double", action="store_true", help="only double faults")
    parser.add_argument(
        "--minutes", type=float, default=24 * 60.0, help="begin no further session after these"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of all random moments and choices"
    )
    parser.add_argument(
        "--report",
        type=Path,
        metavar="PATH",
        help="keep PATH.md and PATH.json, such as docs/measurements/parallel-faults",
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
            is_clean = (
                run_session(session, options.faults, options.seed, options.report) and is_clean
            )
    return 0 if is_clean else 1


def is_over(session: Session, report: Path | None) -> bool:
    """Return True if the session has run to its end, maybe in another process meanwhile."""
    found = read_sessions(report).get(session.name) if report is not None else None
    return found is not None and found["audit"] is not None


def run_session(session: Session, num_faults: int, seed: int, report: Path | None) -> bool:
    """Run one session on a farm of its own, and write each fault to the report once it is over.

    Returns:
        True if no invariant broke and the run ended as expected.
    """
    faults: list[RankFault] = []
    end: dict[str, Any] = {}

    def write(outcome: Outcome | None) -> None:
        if report is not None:
            write_session(report, session.name, as_numbers(session, faults, end, outcome))

    def take(fault: RankFault) -> None:
        faults.append(fault)
        write(None)
        print(
            f"{session.name}: fault {len(faults)} at step {fault.step}, "
            f"renders after {fault.renders_after_s:.1f} s, "
            f"committed after {fault.committed_after_s:.1f} s, "
            f"kept {fault.num_kept} of {fault.num_others}, attempt {fault.attempt}, "
            f"descriptors { {name: count for name, (_, count) in fault.files.items()} }",
            flush=True,
        )

    def inject(run: ScenarioRun) -> int:
        injector = RankFaultInjector(
            run, session.rank, session.number, take, is_double=session.is_double
        )
        num_over = injector.inject(num_faults)
        end.update(num_faults=injector.num_faults, files_at_end=injector.sample_files())
        return num_over

    with tempfile.TemporaryDirectory(prefix="nagfarm-ranks-") as folder:
        notes = Path(folder) / "notes"
        notes.mkdir()
        workload = RankWorkload.make(
            CLIPS_PER_FAULT * num_faults + SPARE_CLIPS, session.group, notes
        )
        scenario = Scenario(session.name, session.number.name, workload, inject, settings=SETTINGS)
        with Farm(Path(folder), seed, num_nodes=1, node_cpus=session.group.size) as farm:
            outcome = run_scenario(scenario, farm, seed)
            log = (Path(folder) / f"{session.name}-0.log").read_text(errors="replace")
    write(outcome)
    for line in (*outcome.problems, *outcome.audit.violations):
        print(f"    {line}", flush=True)
    if not outcome.is_clean:
        print(log, flush=True)
    return outcome.is_clean


def as_numbers(
    session: Session, faults: list[RankFault], end: Mapping[str, Any], outcome: Outcome | None
) -> dict[str, Any]:
    return {
        "model": session.group.model,
        "parallel": str(session.group.parallel),
        "size": session.group.size,
        "signal": session.number.name,
        "rank": session.rank,
        "is_double": session.is_double,
        "faults": [asdict(fault) for fault in faults],
        "num_faults": len(faults),
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
