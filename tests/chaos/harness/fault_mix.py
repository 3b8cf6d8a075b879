"""A mix of faults: one actor killed for 20 clips, one poison row in 50, 5 % of S3's answers bad.

`soak` and `fault_cost` decide for how long the mix is injected and what is measured.
"""

import contextlib
import signal
from collections.abc import Callable

import psutil

from infra.local.faulty_proxy import Faults
from tests.chaos.harness.runner import ScenarioRun

CLIPS_PER_KILL = 20
CLIPS_PER_POISON = 50
ERROR_SHARE = 0.05  # share of requests: half get 503, half a reset
POISON = ("error", "die", "nan", "memory")
SAMPLE_S = 1.0
FAULT_MIX = (
    f"one actor killed for {CLIPS_PER_KILL} clips, one poison row in {CLIPS_PER_POISON}, "
    f"S3 failing {ERROR_SHARE:.0%}"
)


def poison_for(num_clips: int) -> tuple[str, ...]:
    """Return one poisoned row for fifty clips, each kind in turn."""
    return tuple(POISON[index % len(POISON)] for index in range(num_clips // CLIPS_PER_POISON))


def inject_fault_mix(on_sample: Callable[[ScenarioRun], None]) -> Callable[[ScenarioRun], int]:
    """Return an injection that lasts from a run's first commit to its end.

    Args:
        on_sample: callback, about once a second.
    """

    def inject(run: ScenarioRun) -> int:
        run.wait_for_commits(1)
        before = run.farm.proxy.counts
        run.farm.proxy.faults = Faults(error_share=ERROR_SHARE)
        num_kills, due = 0, CLIPS_PER_KILL
        while not run.driver.ends_within(run.random.uniform(0.5, 1.5) * SAMPLE_S):
            on_sample(run)
            actors = run.farm.actors()
            if actors and run.num_committed >= due:
                due += CLIPS_PER_KILL
                with contextlib.suppress(psutil.NoSuchProcess):
                    run.random.choice(actors).send_signal(signal.SIGKILL)
                    num_kills += 1
        after = run.farm.proxy.counts
        return (
            num_kills
            + len(run.workload.poison)
            + sum(after[name] - before[name] for name in ("503", "reset"))
        )

    return inject
