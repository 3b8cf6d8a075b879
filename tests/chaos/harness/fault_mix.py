"""The stated mix of faults: one actor killed for every twenty clips, one poison row in fifty, 5 % of S3's answers bad.

Decides how the mix is injected; how long and against what is for `soak` and `mix`.
"""

import contextlib
import signal
from collections.abc import Callable

import psutil

from infra.local.faulty_proxy import Faults
from tests.chaos.harness.runner import Scene

CLIPS_PER_KILL = 20
CLIPS_PER_POISON = 50
ERROR_SHARE = 0.05  # of the requests, half 503 and half reset
POISON = ("error", "die", "nan", "memory")
LOOK_S = 1.0
MIX = f"one actor killed for {CLIPS_PER_KILL} clips, one poison row in {CLIPS_PER_POISON}, S3 failing {ERROR_SHARE:.0%}"


def poison_for(num_clips: int) -> tuple[str, ...]:
    """One row for fifty clips, every kind in turn."""
    return tuple(POISON[index % len(POISON)] for index in range(num_clips // CLIPS_PER_POISON))


def inject_mix(on_look: Callable[[Scene], None]) -> Callable[[Scene], int]:
    """Disturbs a run from its first commit to its end.

    Args:
        on_look: is called about once a second.
    """

    def inject(scene: Scene) -> int:
        scene.wait_for_commits(1)
        before = scene.farm.proxy.counts
        scene.farm.proxy.faults = Faults(error_share=ERROR_SHARE)
        num_kills, due = 0, CLIPS_PER_KILL
        while not scene.driver.ends_within(scene.random.uniform(0.5, 1.5) * LOOK_S):
            on_look(scene)
            actors = scene.farm.actors()
            if actors and scene.num_committed >= due:
                due += CLIPS_PER_KILL
                with contextlib.suppress(psutil.NoSuchProcess):
                    scene.random.choice(actors).send_signal(signal.SIGKILL)
                    num_kills += 1
        after = scene.farm.proxy.counts
        return (
            num_kills
            + len(scene.workload.poison)
            + sum(after[name] - before[name] for name in ("503", "reset"))
        )

    return inject
