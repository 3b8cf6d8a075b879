"""The faults that remove objects: garbage collection by a wrong clock, and another program.

The proxy holds each request of driver and workers back, and these faults go around it, so that they
come between the upload of an MP4 and its record.
"""

from collections.abc import Callable

from infra.local.faulty_proxy import Faults
from jobs.ending import ExitCode
from jobs.records.commit import committed_ids
from jobs.records.keys import list_keys
from tests.chaos.harness.runner import ScenarioError, ScenarioRun

HELD_BACK = Faults(delay_s=0.5)
CLOCK_ERROR_S = 2 * 24 * 3600


def collect_garbage_by_a_wrong_clock(times: int) -> Callable[[ScenarioRun], int]:
    """Run `nagfarm gc --delete`, with a clock two days ahead, while clips are being committed."""

    def inject(run: ScenarioRun) -> int:
        run.farm.proxy.faults = HELD_BACK
        for injected in range(times):
            if not run.wait_for_commits(run.num_committed + 2):
                return injected
            ended = run.farm.collect_garbage(run.output, CLOCK_ERROR_S)
            if ended.returncode not in (ExitCode.BUSY, ExitCode.REFUSED):
                raise ScenarioError(f"gc ended with {ended.returncode}: {ended.stdout[-2000:]}")
        return times

    return inject


def remove_unnamed_mp4s(run: ScenarioRun) -> int:
    """Remove each MP4 that no record names at that moment, until the run has ended."""
    run.farm.proxy.faults = HELD_BACK
    num_removed = 0

    def remove() -> bool:
        nonlocal num_removed
        uploaded = list(list_keys(run.store, "clip"))
        committed = committed_ids(run.store)
        for parsed in uploaded:
            if parsed.clip_id not in committed:
                run.store.delete(parsed.key)
                num_removed += 1
        return False

    run.wait_until(remove, "the run's end")
    return num_removed
