"""The things that all simulated workers share: devices, the store and the driver's time.

Decides how long a request waits behind others. Loads without torch.
"""

import random
from collections import defaultdict
from collections.abc import Mapping

from jobs.simulation.clock import VirtualClock
from jobs.simulation.conditions import DEVICES_PER_MACHINE, Conditions
from jobs.simulation.outcome import Loss
from pipelines.parallel_config import ParallelConfig

REQUESTS_PER_CLIP = 4  # is there a record? the MP4, the record, and a look at the MP4


class Queue:
    """A part of the farm that serves one request after another, each for some seconds."""

    def __init__(self) -> None:
        self._free_at = 0.0

    def serve(self, now: float, for_s: float) -> float:
        """Return the moment at which a request that comes now has been served."""
        self._free_at = max(now, self._free_at) + for_s
        return self._free_at


class Farm:
    """A cluster of devices, eight in a machine, its store and its driver, in virtual time."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.clock = VirtualClock()
        self.random = random.Random(conditions.seed)
        self.driver, self._store = Queue(), Queue()
        self.busy_s = 0.0
        self.lost_s: defaultdict[Loss, float] = defaultdict(float)
        self._free = [list(range(size)) for size in self._sizes()]

    def _sizes(self) -> list[int]:
        full, rest = divmod(self.conditions.num_devices, DEVICES_PER_MACHINE)
        return [DEVICES_PER_MACHINE] * full + ([rest] if rest else [])

    def machines(self, num_cpus: int) -> list[Mapping[str, float]]:
        """Return the resources of each machine in Ray's words, with enough cores for its devices.

        Args:
            num_cpus: cores that each worker reserves.
        """
        return [{"GPU": float(size), "CPU": float(size * num_cpus)} for size in self._sizes()]

    def place(self, parallel: ParallelConfig, cordoned: frozenset[str]) -> list[str] | None:
        """Take the devices of a worker; return the node of each, or None if it has to wait."""
        found: list[int] = []
        for machine, free in enumerate(self._free):
            if not free or node_name(machine) in cordoned:
                continue
            if parallel.across_hosts:
                found += [machine] * min(len(free), parallel.degree - len(found))
            elif len(free) >= parallel.degree:
                found = [machine] * parallel.degree
            if len(found) == parallel.degree:
                for taken in found:
                    self._free[taken].pop()
                return [node_name(taken) for taken in found]
        return None

    def release(self, nodes: list[str]) -> None:
        """Return the devices of a worker."""
        for node in nodes:
            free = self._free[int(node.removeprefix(NODE))]
            free.append(len(free))

    def upload(self, num_bytes: int, upload_s: float) -> float:
        """Return the moment at which the store has taken a clip whose upload begins now."""
        limits, now = self.conditions, self.clock.now
        for_s = 0.0
        if limits.store_requests_per_s is not None:
            for_s = REQUESTS_PER_CLIP / limits.store_requests_per_s
        if limits.store_bytes_per_s is not None:
            for_s = max(for_s, num_bytes / limits.store_bytes_per_s)
        return max(now + upload_s, self._store.serve(now, for_s) if for_s else now)


NODE = "machine-"


def node_name(machine: int) -> str:
    return f"{NODE}{machine}"
