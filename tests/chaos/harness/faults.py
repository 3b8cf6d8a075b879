"""What is done to a running scene, for real: processes are killed and stopped, disks filled, the store disturbed.

Decides how, and when: each waits for the run to have got somewhere, then for a random moment. None knows what it means
for the run; `scenarios` does. Each returns how often it struck.
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
from tests.chaos.harness.runner import Scene, SceneError

FILL_BYTES = 4096
START_S = 5.0  # about what a driver takes until its first worker is ready
STRIKE_WITHIN_S = (
    1.0  # after what is waited for, so that every stage of a clip is hit sooner or later
)


Inject = Callable[[Scene], int]


def at_random_moment(scene: Scene, commits: int) -> bool:
    """Waits for the run to commit so many more clips, and a random while longer; False where it ended before."""
    if not scene.wait_for_commits(scene.num_committed + commits):
        return False
    return not scene.driver.ends_within(scene.random.uniform(0, STRIKE_WITHIN_S))


def signal_actors(count: int, number: signal.Signals, commits: int) -> Inject:
    """Sends a signal to random actors, one after the other, each after so many more commits."""

    def inject(scene: Scene) -> int:
        for struck in range(count):
            if not at_random_moment(scene, commits):
                return struck
            if not scene.wait_until(lambda: bool(scene.farm.actors()), "an actor"):
                return struck
            with contextlib.suppress(psutil.NoSuchProcess):
                scene.random.choice(scene.farm.actors()).send_signal(number)
        return count

    return inject


def kill_nodes(count: int, commits: int) -> Inject:
    """Kills the raylet of a random node that has actors, and starts another node, as a cluster does."""

    def inject(scene: Scene) -> int:
        for struck in range(count):
            if not at_random_moment(scene, commits):
                return struck
            busy = [node for node in scene.farm.nodes if node.actors("RenderActor")]
            scene.random.choice(busy or scene.farm.nodes).kill()
            scene.farm.have_nodes()
        return count

    return inject


def drain_nodes(seconds: int, commits: int) -> Inject:
    """Tells Ray that a node that has actors will be taken away, as after a spot notice."""

    def inject(scene: Scene) -> int:
        if not at_random_moment(scene, commits):
            return 0
        node = next(node for node in scene.farm.nodes if node.actors("RenderActor"))
        command = [
            *(
                ray_command(),
                "drain-node",
                f"--address={scene.farm.cluster.address}",
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
            for name, value in scene.farm.cluster.environment().items()
            if name != "RAY_ADDRESS"
        }
        drained = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False
        )
        if drained.returncode:
            raise SceneError(f"ray drain-node failed: {drained.stderr[-2000:]}")
        scene.wait_until(lambda: not node.is_alive, "the drained node's end", seconds + 60)
        return 1

    return inject


def kill_driver(times: int) -> Inject:
    """Kills the driver at a random moment, its start included, and starts another one that goes on; so many times."""

    def inject(scene: Scene) -> int:
        for struck in range(times):
            commits = scene.random.choice((0, 1, 1, 2, 3))
            if not scene.wait_for_commits(scene.num_committed + commits):
                return struck
            if scene.driver.ends_within(
                scene.random.uniform(0, STRIKE_WITHIN_S if commits else START_S)
            ):
                return struck
            resume_after(scene, signal.SIGKILL)
        return times

    return inject


def terminate_driver(times: int) -> Inject:
    """Asks the driver to end while it renders, and starts another one that goes on; so many times."""

    def inject(scene: Scene) -> int:
        for struck in range(times):
            if not at_random_moment(scene, 2):
                return struck
            resume_after(scene, signal.SIGTERM)
        return times

    return inject


def resume_after(scene: Scene, number: signal.Signals) -> None:
    scene.driver.send(number)
    scene.finish()
    scene.start_driver(
        "--takeover"
    )  # the last one is gone, and where it was killed its lease is not over


def disturb_store(faults: Faults, commits: int = 0) -> Inject:
    """From so many commits on, everything goes through a store that has these faults."""

    def inject(scene: Scene) -> int:
        if not scene.wait_for_commits(commits):
            return 0
        before = scene.farm.proxy.counts
        scene.farm.proxy.faults = faults
        scene.wait_until(lambda: False, "the run's end", 240)
        return sum(
            count - before[name]
            for name, count in scene.farm.proxy.counts.items()
            if name != "requests"
        )

    return inject


def take_store_down(seconds: float, commits: int) -> Inject:
    """For so long nobody listens."""

    def inject(scene: Scene) -> int:
        if not at_random_moment(scene, commits):
            return 0
        scene.farm.proxy.faults = Faults(is_down=True)
        scene.driver.ends_within(seconds)
        scene.farm.proxy.faults = Faults()
        return 1

    return inject


def fill_disks(seconds: float, commits: int) -> Inject:
    """Fills every node's disk, and empties it again after a while."""

    def inject(scene: Scene) -> int:
        if not at_random_moment(scene, commits):
            return 0
        ballast = [node.temporary / "ballast" for node in scene.farm.nodes]
        try:
            for path in ballast:
                fill(path)
            scene.driver.ends_within(seconds)
        finally:
            for path in ballast:
                path.unlink(missing_ok=True)
        return len(ballast)

    return inject


def fill(path: Path) -> None:
    """Writes until the disk says that it is full."""
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(FILL_BYTES))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                return


def start_second_driver(scene: Scene) -> int:
    """Another driver on the same output, which has to be refused while the first goes on."""
    wait_for_lease(scene)
    scene.finish(scene.start_driver())
    scene.drivers.reverse()  # the first is the one that is awaited
    return int(scene.driver.exit_code is None)


def wait_for_lease(scene: Scene) -> None:
    """Waits until a driver has taken the output, which is long before its first commit."""
    scene.wait_until(lambda: current_lease(scene.store) is not None, "a lease")


def start_rival_driver(scene: Scene) -> int:
    """Another driver takes the output, and the first does not learn of it: both render the same clips to the end."""
    wait_for_lease(scene)
    first = scene.driver
    scene.start_driver("--takeover")
    scene.finish(first)
    return 1


def put_driver_to_sleep(scene: Scene) -> int:
    """A driver sleeps while another takes its output, and wakes up as if nothing had happened."""
    scene.wait_for_commits(2)
    sleeper = scene.driver
    sleeper.send(signal.SIGSTOP)
    scene.start_driver("--takeover")
    scene.wait_for_commits(
        scene.num_committed + 8
    )  # some of them by the sleeper's workers, which are awake
    sleeper.send(signal.SIGCONT)
    scene.finish(sleeper)
    return 1


def poison(scene: Scene) -> int:
    """Nothing from outside: the rows do it."""
    return len(scene.workload.poison)
