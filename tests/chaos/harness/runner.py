"""One scenario from its first driver to its audit.

Decides what a scenario is, how its drivers are started and awaited, and what is held against it. What is injected is
for `faults`, which scenarios there are for `scenarios`.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from infra.local.faulty_proxy import Faults
from jobs.cli.command import EXIT_OK
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import committed_ids, quarantined_ids
from tests.chaos.harness.audit import Audit, audit
from tests.chaos.harness.farm import Driver, Farm
from tests.chaos.harness.workload import POISONED, Workload

POLL_S = 0.05
WAIT_S = 240.0  # for anything that a run does soon, on a machine that may be busy with other things
DEADLINE_S = 400.0  # of one driver; a run that takes so long hangs


class SceneError(Exception):
    """What an injection waited for did not come."""


@dataclass(eq=False)
class Scene:
    """A run, as those who disturb it see it.

    Args:
        random: every random moment and choice of the scenario.
    """

    farm: Farm
    workload: Workload
    prefix: str
    settings: tuple[str, ...]
    random: random.Random
    drivers: list[Driver] = field(default_factory=list[Driver])
    exit_codes: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.store = self.farm.store(self.prefix)
        self.manifest = self.workload.write(self.farm.folder / f"{self.prefix}.jsonl")

    @property
    def driver(self) -> Driver:
        """The one that was started last."""
        return self.drivers[-1]

    @property
    def num_committed(self) -> int:
        return len(committed_ids(self.store))

    def start_driver(self, *options: str) -> Driver:
        driver = self.farm.start_driver(
            self.workload, self.manifest, self.prefix, (*self.settings, *options)
        )
        self.drivers.append(driver)
        return driver

    def wait_until(self, is_so: Callable[[], bool], what: str, seconds: float = WAIT_S) -> bool:
        """Waits for something while the last driver runs.

        Returns:
            Whether it came before the driver ended.

        Raises:
            SceneError: neither came.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            if self.driver.ends_within(POLL_S):
                return is_so()
            if time.monotonic() > deadline:
                raise SceneError(
                    f"waited {seconds:g} s in vain for {what}:\n{self.driver.last_lines}"
                )
        return True

    def wait_for_commits(self, count: int) -> bool:
        return self.wait_until(lambda: self.num_committed >= count, f"{count} commits")

    def finish(self, driver: Driver | None = None) -> int:
        """Waits for a driver's end, the last one's unless told otherwise, and notes its exit code."""
        driver = driver or self.driver
        if not driver.ends_within(DEADLINE_S):
            lines = driver.last_lines
            driver.kill()
            raise SceneError(f"the driver did not end within {DEADLINE_S:g} s:\n{lines}")
        assert driver.exit_code is not None
        self.exit_codes.append(driver.exit_code)
        return driver.exit_code

    def close(self) -> None:
        """Undoes whatever is still out of order."""
        self.farm.proxy.faults = Faults()
        for driver in self.drivers:
            if driver.exit_code is None:
                driver.kill()


@dataclass(frozen=True)
class Scenario:
    """What goes wrong, while what is rendered, and how it must end.

    Args:
        name: in the command line and in outputs.
        fault: in the table.
        inject: disturbs a scene whose first driver has been started, and returns how often it did; the drivers that it
            starts besides it either finishes itself or leaves one to be awaited.
        exit_codes: of all drivers, in the order of their ends; None takes any.
        settings: besides the farm's.
        needs_root: mounts something.
    """

    name: str
    fault: str
    workload: Workload
    inject: Callable[[Scene], int]
    exit_codes: tuple[int, ...] | None = (EXIT_OK,)
    settings: tuple[str, ...] = ()
    needs_root: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario.

    Args:
        num_injected: faults.
        wall_s: from the first driver's start to the last one's end.
        problems: what was not as expected besides the audit's invariants.
    """

    name: str
    fault: str
    num_injected: int
    audit: Audit
    wall_s: float
    exit_codes: tuple[int, ...]
    problems: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        return self.audit.is_clean and not self.problems


def play(scenario: Scenario, farm: Farm, seed: int, turn: int = 0) -> Outcome:
    """Plays a scenario on a farm that is in order, and leaves it in order.

    Args:
        turn: of one scenario that is played several times, so that each has an output of its own.
    """
    farm.have_nodes()
    prefix = f"{scenario.name}-{turn}"
    dice = random.Random(f"{seed} {prefix}")
    scene = Scene(farm, scenario.workload, prefix, scenario.settings, dice)
    problems: list[str] = []
    num_injected, started = 0, time.monotonic()
    try:
        scene.start_driver()
        num_injected = scenario.inject(scene)
        scene.finish()
    except SceneError as error:
        problems.append(str(error))
    finally:
        wall_s = time.monotonic() - started
        scene.close()
    problems += judge(scenario, scene.exit_codes, num_injected)
    catalog = ModelCatalog(farm.models)
    specs = list(open_manifest(scene.manifest, catalog, model=scenario.workload.model).specs())
    found = audit(scene.store, specs, farm.writes(prefix), farm.orphans())
    quarantined = quarantined_ids(scene.store) - committed_ids(scene.store)
    problems += judge_quarantine(
        {spec.name for spec in specs if spec.clip_id in quarantined}, {spec.name for spec in specs}
    )
    return Outcome(
        scenario.name,
        scenario.fault,
        num_injected,
        found,
        wall_s,
        tuple(scene.exit_codes),
        tuple(problems),
    )


def judge(scenario: Scenario, exit_codes: Sequence[int], num_injected: int) -> list[str]:
    """What of the drivers' ends is not as it should be."""
    problems: list[str] = []
    if scenario.exit_codes is not None and tuple(exit_codes) != scenario.exit_codes:
        problems.append(
            f"drivers ended with {list(exit_codes)}, expected {list(scenario.exit_codes)}"
        )
    if num_injected == 0 and scenario.inject is not undisturbed:
        problems.append("the run was over before anything was injected")
    return problems


def judge_quarantine(quarantined: set[str], planned: set[str]) -> list[str]:
    """Poisoned rows belong there, and no others; both are the names of clips."""
    poisoned = {name for name in planned if name.startswith(POISONED)}
    return [
        *(f"{name} is poisoned and was not given up" for name in sorted(poisoned - quarantined)),
        *(f"{name} was given up and is as it should be" for name in sorted(quarantined - poisoned)),
    ]


def undisturbed(_scene: Scene) -> int:
    """Nothing goes wrong."""
    return 0
