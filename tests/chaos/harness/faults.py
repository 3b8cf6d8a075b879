"""The faults: processes killed and stopped, disks filled, the store disturbed, all for real.

Each fault waits until the run has made some progress, and then for a random moment. Each injection
returns the number of faults. `scenarios` states how the run must end.
"""

import contextlib
import errno
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from infra.local.faulty_proxy import Faults
from infra.local.ray_cluster import ray_command
from jobs.records.lease_record import current_lease
from tests.chaos.harness.runner import ScenarioError, ScenarioRun

FILL_BYTES = 4096
START_S = 5.0  # about what a driver takes until its first worker is ready
INJECT_WITHIN_S = 1.0  # after the awaited commit, so that each stage of a clip is hit at times


Inject = Callable[[ScenarioRun], int]


def at_random_moment(run: ScenarioRun, commits: int) -> bool:
    """Wait for `commits` more clips and a random moment; return False if the run ended before."""
    if not run.wait_for_commits(run.num_committed + commits):
        return False
    return not run.driver.ends_within(run.random.uniform(0, INJECT_WITHIN_S))


def signal_actors(count: int, number: signal.Signals, commits: int) -> Inject:
    """Send a signal to random actors, one after the other, each after `commits` more clips."""

    def inject(run: ScenarioRun) -> int:
        for injected in range(count):
            if not at_random_moment(run, commits):
                return injected
            if not run.wait_until(lambda: bool(run.farm.actors()), "an actor"):
                return injected
            with contextlib.suppress(psutil.NoSuchProcess):
                run.random.choice(run.farm.actors()).send_signal(number)
        return count

    return inject


def kill_nodes(count: int, commits: int) -> Inject:
    """Kill the raylet of a random node with actors, and start another node, as a cluster does."""

    def inject(run: ScenarioRun) -> int:
        for injected in range(count):
            if not at_random_moment(run, commits):
                return injected
            busy = [node for node in run.farm.nodes if node.actors("RenderActor")]
            run.random.choice(busy or run.farm.nodes).kill()
            run.farm.restore_nodes()
        return count

    return inject


def drain_nodes(seconds: int, commits: int) -> Inject:
    """Let Ray drain a node with actors, as after a spot notice."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        node = next(node for node in run.farm.nodes if node.actors("RenderActor"))
        command = [
            *(
                ray_command(),
                "drain-node",
                f"--address={run.farm.cluster.address}",
                f"--node-id={node.node_id}",
            ),
            *(
                "--reason=DRAIN_NODE_REASON_PREEMPTION",
                "--reason-message=spot",
                f"--deadline-remaining-seconds={seconds}",
            ),
        ]
        environment = {
            name: value
            for name, value in run.farm.cluster.environment().items()
            if name != "RAY_ADDRESS"
        }
        drained = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if drained.returncode:
            raise ScenarioError(f"ray drain-node failed: {drained.stderr[-2000:]}")
        run.wait_until(lambda: not node.is_alive, "the drained node's end", seconds + 60)
        return 1

    return inject


def kill_driver(times: int) -> Inject:
    """Kill the driver at a random moment, start included, and start the next one, `times` times."""

    def inject(run: ScenarioRun) -> int:
        for injected in range(times):
            commits = run.random.choice((0, 1, 1, 2, 3))
            if not run.wait_for_commits(run.num_committed + commits):
                return injected
            if run.driver.ends_within(
                run.random.uniform(0, INJECT_WITHIN_S if commits else START_S)
            ):
                return injected
            resume_after(run, signal.SIGKILL)
        return times

    return inject


def terminate_driver(times: int, number: signal.Signals = signal.SIGTERM) -> Inject:
    """Ask the driver to stop while it renders, and start the next one, `times` times."""

    def inject(run: ScenarioRun) -> int:
        for injected in range(times):
            if not at_random_moment(run, 2):
                return injected
            resume_after(run, number)
        return times

    return inject


def resume_after(run: ScenarioRun, number: signal.Signals) -> None:
    run.driver.send(number)
    run.finish()
    run.start_driver("--takeover")  # a killed driver leaves its lease behind


def disturb_store(faults: Faults, commits: int = 0) -> Inject:
    """Give the store these faults from the first `commits` clips on to the run's end."""

    def inject(run: ScenarioRun) -> int:
        if not run.wait_for_commits(commits):
            return 0
        before = run.farm.proxy.counts
        run.farm.proxy.faults = faults
        run.wait_until(lambda: False, "the run's end", 240)
        return sum(
            count - before[name]
            for name, count in run.farm.proxy.counts.items()
            if name != "requests"
        )

    return inject


def take_store_down(seconds: float, commits: int) -> Inject:
    """Close the store's port for some seconds."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        run.farm.proxy.faults = Faults(is_down=True)
        run.driver.ends_within(seconds)
        run.farm.proxy.faults = Faults()
        return 1

    return inject


def fill_disks(seconds: float, commits: int) -> Inject:
    """Fill the disk of each node, and empty it again after some seconds."""

    def inject(run: ScenarioRun) -> int:
        if not at_random_moment(run, commits):
            return 0
        ballast = [node.temporary / "ballast" for node in run.farm.nodes]
        try:
            for path in ballast:
                fill(path)
            run.driver.ends_within(seconds)
        finally:
            for path in ballast:
                path.unlink(missing_ok=True)
        return len(ballast)

    return inject


def fill(path: Path) -> None:
    """Write to the end of a file until the disk is full."""
    with path.open("ab", buffering=0) as file:
        while True:
            try:
                file.write(bytes(FILL_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


def start_second_driver(run: ScenarioRun) -> int:
    """Start a second driver on the output, which must be refused while the first goes on."""
    wait_for_lease(run)
    run.finish(run.start_driver())
    run.drivers.reverse()  # the first one is awaited at the end
    return int(run.driver.exit_code is None)


def wait_for_lease(run: ScenarioRun) -> None:
    """Wait until a driver has taken the lease, which is long before its first commit."""
    run.wait_until(lambda: current_lease(run.store) is not None, "a lease")


def start_rival_driver(run: ScenarioRun) -> int:
    """Let a second driver take the output unnoticed, so that both render the same clips."""
    wait_for_lease(run)
    first = run.driver
    run.start_driver("--takeover")
    run.finish(first)
    return 1


def put_driver_to_sleep(run: ScenarioRun) -> int:
    """Stop a driver while another one takes its output, and let it go on afterwards."""
    run.wait_for_commits(2)
    sleeper = run.driver
    sleeper.send(signal.SIGSTOP)
    run.start_driver("--takeover")
    # some of these commits are made by the sleeper's workers, which are awake
    run.wait_for_commits(run.num_committed + 8)
    sleeper.send(signal.SIGCONT)
    run.finish(sleeper)
    return 1


def count_poison(run: ScenarioRun) -> int:
    """Return the number of poisoned rows, which are the fault."""
    return len(run.workload.poison)
