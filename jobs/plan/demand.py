"""The workers that a run wants of one kind, the room for them in the cluster, and what is missing.

Pure: callers pass the machines, as the cluster has them now. Loads without torch.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from jobs.plan.group_capacity import Machines, RankResources, count_groups
from jobs.text import counted
from pipelines.parallel_config import ParallelConfig

SETTING = "workers.wait_for_resources_s"
ENTRYPOINT = {"CPU": "--entrypoint-num-cpus", "GPU": "--entrypoint-num-gpus"}  # Ray's options


@dataclass(frozen=True)
class Demand:
    """The wanted workers of one kind.

    Args:
        parallel: devices of one worker.
        reserved: resources of each single worker, or of each rank of a group.
        num_clips: clips to render; more workers than that would have nothing to do.
        count: number of workers; None follows the cluster.
        wait_s: seconds that the run waits for a cluster without room; None waits without end.
        held_by_driver: resources that the run's own driver holds; the machines are without them.
    """

    parallel: ParallelConfig
    reserved: RankResources
    num_clips: int
    count: int | None = None
    wait_s: float | None = None
    held_by_driver: Mapping[str, float] = field(default_factory=dict[str, float])

    def room(self, machines: Machines) -> int:
        """Return the number of workers that fit, whatever other jobs hold."""
        return count_groups(machines, self.parallel, self.reserved)

    def num_wanted(self, machines: Machines) -> int:
        """Return the number of workers to keep: at least one, so that a cluster may grow for it."""
        return min(self.count or max(1, self.room(machines)), self.num_clips)

    def lacking(self, machines: Machines) -> str | None:
        """Return the resources that a worker needs and no node has; None if one worker fits."""
        if self.room(machines):
            return None
        need = self._need()
        suitable = [machine for machine in machines if self.reserved.may_be_on(machine)]
        if not machines:
            return f"a worker needs {need}, the cluster has no node for it"
        if not suitable:
            return f"a worker needs {need}, and none of the cluster's nodes is such a node"
        total = Counter[str]()
        for machine in suitable:
            total.update(machine)
        names = ("GPU", "CPU") if self.reserved.num_gpus else ("CPU",)
        amounts = [counted(int(total[name]), name) for name in names]
        amounts += [f"{total[name]:g} {name}" for name in self.reserved.others]
        node = "such node" if self.reserved.labels else "node"
        verb = "has" if len(suitable) == 1 else "have"
        nodes = f"the cluster's {counted(len(suitable), node)} {verb} {' and '.join(amounts)}"
        return f"a worker needs {need}, {nodes}{self._driver_text()}"

    def _need(self) -> str:
        """Return the resources of a worker for people, and the nodes that may have them."""
        need, labels = str(self.reserved), self.reserved.labels_text
        if self.parallel.degree > 1:
            need = f"{self.parallel.degree} times {need}"
        if labels:
            return f"{need} on {'nodes' if self.parallel.across_hosts else 'a node'} with {labels}"
        is_on_one = self.parallel.degree > 1 and not self.parallel.across_hosts
        return f"{need} on one node" if is_on_one else need

    def _driver_text(self) -> str:
        held = {name: amount for name, amount in self.held_by_driver.items() if amount}
        if not held:
            return ""
        amounts = " and ".join(
            f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in held.items()
        )
        options = " ".join(ENTRYPOINT[name] for name in held)
        return f" besides the {amounts} of this run's own driver (ray job submit {options})"

    def left(self, machines: Machines, num_workers: int) -> Machines:
        """Return the machines without the places of some workers of this kind.

        It is not known which machines they are on: the first that have room are taken.
        """
        num_ranks, found = num_workers * self.parallel.degree, list[Mapping[str, float]]()
        for machine in machines:
            fitting = self.reserved.fit_into(machine)
            if not self.parallel.across_hosts:
                fitting -= fitting % self.parallel.degree
            taken = max(0, min(fitting, num_ranks))
            num_ranks -= taken
            found.append(self.reserved.taken_from(machine, taken))
        return found

    def waiting(
        self,
        num_waiting: int,
        num_placed: int,
        machines: Machines,
        left: Machines | None = None,
    ) -> str:
        """Return the devices that workers wait for, and who has them.

        Args:
            num_waiting: number of workers without a place.
            num_placed: number of workers that have their devices.
            left: the machines without the places of the run's other kinds of worker.
        """
        lacking = self.lacking(machines)
        if lacking is not None:
            end = f"; the run stops after {self.wait_s:g} s ({SETTING})" if self.wait_s else ""
            return f"{self._devices(num_waiting)}: {lacking}{end}"
        room = self.room(machines)
        most = {
            "held by other jobs": self.room(machines if left is None else left) - num_placed,
            "held by other models of this run": room - num_placed,
        }
        parts, num_held = list[str](), 0
        for holder, num_places in most.items():
            num_more = max(0, min(num_waiting, num_places) - num_held)
            num_held += num_more
            parts += [f"{self._devices(num_more)}, {holder}"] if num_more else []
        if num_waiting > num_held:
            missing = self._devices(num_waiting - num_held)
            has = f"it has room for {counted(room, 'worker')}"
            parts.append(f"{missing} that the cluster does not have: {has}")
        return ", and ".join(parts)

    def _devices(self, num_workers: int) -> str:
        devices = counted(num_workers * self.parallel.degree, "device")
        if self.parallel.degree == 1:
            return devices
        return f"{devices} for {counted(num_workers, 'group')} of {self.parallel.degree}"
