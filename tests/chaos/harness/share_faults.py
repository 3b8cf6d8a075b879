"""The faults of an output on a share: it is unmounted under a run, for a time or for good."""

import contextlib
from collections.abc import Generator

from tests.chaos.harness.faults import Inject, at_random_moment
from tests.chaos.harness.runner import ScenarioError, ScenarioRun


def unmount_share(seconds: float, commits: int) -> Inject:
    """Unmount the share of the output, and mount it again after some seconds."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        with unmounted(run):
            run.driver.ends_within(seconds)
        return 1

    return inject


def lose_share(commits: int) -> Inject:
    """Unmount the share until the driver has stopped; the next one finds it mounted."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        with unmounted(run):
            run.finish()
        run.start_driver("--takeover")  # the first one could not release its lease
        return 1

    return inject


@contextlib.contextmanager
def unmounted(run: ScenarioRun) -> Generator[None]:
    """Unmount the share in a block. Nothing may be written under its path meanwhile."""
    share = run.farm.share
    share.unmount()
    try:
        yield
        if names := share.below():
            raise ScenarioError(f"written below the unmounted share: {', '.join(names)}")
    finally:
        share.mount()
