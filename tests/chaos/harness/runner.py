"""One run of a scenario, from its first driver to the audit of its store.

Starts and awaits the drivers and checks how they ended. The faults are in `faults`, the list of
scenarios in `scenarios`.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from infra.local.faulty_proxy import Faults
from jobs.cli.pattern.command import EXIT_OK
from jobs.manifest.manifest import open_manifest
from jobs.manifest.model_catalog import ModelCatalog
from jobs.records.commit import committed_ids, quarantined_ids
from tests.chaos.harness.audit import Audit, audit
from tests.chaos.harness.farm import Driver, Farm
from tests.chaos.harness.workload import POISONED, Workload

POLL_S = 0.05
WAIT_S = 240.0  # for anything that a run does soon, on a machine that may be busy
DEADLINE_S = 400.0  # for one driver; a run that takes longer hangs


class ScenarioError(Exception):
    """An awaited event of a run did not happen in time."""


@dataclass(eq=False)
class ScenarioRun:
    """A run of a scenario, as the injection of faults sees it.

    Args:
        output: URI of the run's output, which ends in the name of the run.
        random: source of every random moment and choice of the scenario.
        kind: class of the drivers.
        exit_codes: exit codes of the drivers, in the order of their ends.
    """

    farm: Farm
    workload: Workload
    output: str
    settings: tuple[str, ...]
    random: random.Random
    kind: type[Driver] = Driver
    drivers: list[Driver] = field(default_factory=list[Driver])
    exit_codes: list[int] = field(default_factory=list[int])

    def __post_init__(self) -> None:
        self.store = self.farm.store(self.output)
        name = self.output.rpartition("/")[2]
        self.manifest = self.workload.write(self.farm.folder / f"{name}.jsonl")

    @property
    def driver(self) -> Driver:
        """Return the driver that was started last."""
        return self.drivers[-1]

    @property
    def num_committed(self) -> int:
        return len(committed_ids(self.store))

    def start_driver(self, *options: str) -> Driver:
        driver = self.farm.start_driver(
            self.workload, self.manifest, self.output, (*self.settings, *options), self.kind
        )
        self.drivers.append(driver)
        return driver

    def wait_until(self, is_so: Callable[[], bool], event: str, seconds: float = WAIT_S) -> bool:
        """Wait for an event while the last driver runs.

        Args:
            event: description of the event, for the error.

        Returns:
            True if the event came before the driver ended.

        Raises:
            ScenarioError: neither came in time.
        """
        deadline = time.monotonic() + seconds
        while not is_so():
            if self.driver.ends_within(POLL_S):
                return is_so()
            if time.monotonic() > deadline:
                raise ScenarioError(
                    f"waited {seconds:g} s in vain for {event}:\n{self.driver.last_log_lines()}"
                )
        return True

    def wait_for_commits(self, count: int) -> bool:
        return self.wait_until(lambda: self.num_committed >= count, f"{count} commits")

    def finish(self, driver: Driver | None = None) -> int:
        """Wait for the end of a driver, by default the last one, and note its exit code."""
        driver = driver or self.driver
        if not driver.ends_within(DEADLINE_S):
            lines = driver.last_log_lines()
            driver.kill()
            raise ScenarioError(f"the driver did not end within {DEADLINE_S:g} s:\n{lines}")
        assert driver.exit_code is not None
        self.exit_codes.append(driver.exit_code)
        return driver.exit_code

    def close(self) -> None:
        """End the faults of the store and kill the drivers that still run."""
        self.farm.proxy.faults = Faults()
        for driver in self.drivers:
            if driver.exit_code is None:
                driver.kill()


@dataclass(frozen=True)
class Scenario:
    """A fault, the clips that are rendered under it, and the expected end.

    Args:
        name: name on the command line and in outputs.
        fault: name of the fault in the table.
        inject: function that injects the fault into a run whose first driver was started, and
            returns the number of faults. It finishes all drivers that it starts but the last.
        exit_codes: expected exit codes of all drivers, in the order of their ends; None takes any.
        settings: run settings in addition to those of the farm.
        needs_root: True if a file system is mounted.
        is_on_share: True for an output in a folder of the farm's share; False for one on S3.
        driver: class of the drivers.
    """

    name: str
    fault: str
    workload: Workload
    inject: Callable[[ScenarioRun], int]
    exit_codes: tuple[int, ...] | None = (EXIT_OK,)
    settings: tuple[str, ...] = ()
    needs_root: bool = False
    is_on_share: bool = False
    driver: type[Driver] = Driver


@dataclass(frozen=True)
class Outcome:
    """The result of a scenario.

    Args:
        num_injected: number of injected faults.
        wall_s: seconds from the first driver's start to the last one's end.
        problems: deviations from the expected end, in addition to the audit's violations.
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


def run_scenario(scenario: Scenario, farm: Farm, seed: int, turn: int = 0) -> Outcome:
    """Run a scenario on a healthy farm, and leave the farm healthy.

    Args:
        turn: number of the run, if a scenario runs several times, each with an output of its own.
    """
    farm.restore_nodes()
    prefix = f"{scenario.name}-{turn}"
    rng = random.Random(f"{seed} {prefix}")
    output = farm.output(prefix, is_on_share=scenario.is_on_share)
    run = ScenarioRun(farm, scenario.workload, output, scenario.settings, rng, scenario.driver)
    problems: list[str] = []
    num_injected, started = 0, time.monotonic()
    try:
        run.start_driver()
        num_injected = scenario.inject(run)
        run.finish()
    except ScenarioError as error:
        problems.append(str(error))
    finally:
        wall_s = time.monotonic() - started
        run.close()
    problems += check_drivers(scenario, run.exit_codes, num_injected)
    catalog = ModelCatalog(farm.models)
    specs = list(open_manifest(run.manifest, catalog, model=scenario.workload.model).specs())
    found = audit(run.store, specs, farm.writes(run.store), farm.orphans())
    quarantined = quarantined_ids(run.store) - committed_ids(run.store)
    problems += check_quarantine(
        {spec.name for spec in specs if spec.clip_id in quarantined}, {spec.name for spec in specs}
    )
    return Outcome(
        scenario.name,
        scenario.fault,
        num_injected,
        found,
        wall_s,
        tuple(run.exit_codes),
        tuple(problems),
    )


def check_drivers(scenario: Scenario, exit_codes: Sequence[int], num_injected: int) -> list[str]:
    """Return the deviations of the drivers' ends from the expected ones."""
    problems: list[str] = []
    if scenario.exit_codes is not None and tuple(exit_codes) != scenario.exit_codes:
        problems.append(
            f"drivers ended with {list(exit_codes)}, expected {list(scenario.exit_codes)}"
        )
    if num_injected == 0 and scenario.inject is not inject_nothing:
        problems.append("the run was over before anything was injected")
    return problems


def check_quarantine(quarantined: set[str], planned: set[str]) -> list[str]:
    """Check that exactly the poisoned rows are in quarantine, given the names of clips."""
    poisoned = {name for name in planned if name.startswith(POISONED)}
    return [
        *(f"{name} is poisoned and was not quarantined" for name in sorted(poisoned - quarantined)),
        *(f"{name} was quarantined and is healthy" for name in sorted(quarantined - poisoned)),
    ]


def inject_nothing(_run: ScenarioRun) -> int:
    """Inject no fault."""
    return 0
