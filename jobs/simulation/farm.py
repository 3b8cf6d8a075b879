"""The things that all simulated workers share: devices, the store and the driver's time.

Decides how long a request waits behind others. Loads without torch.
"""

import random
from collections import defaultdict, deque
from collections.abc import Callable, Mapping

from jobs.simulation.clock import VirtualClock
from jobs.simulation.conditions import DEVICES_PER_MACHINE, Conditions
from jobs.simulation.outcome import Loss
from jobs.simulation.worker import SimulatedWorker
from pipelines.parallel_config import ParallelConfig

# is there a record? the MP4, thumbnail and poster, the record, and a look at the MP4
REQUESTS_PER_CLIP = 6


class Queue:
    """A part of the farm that serves one worker after another, each for some seconds."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._waiting: deque[tuple[SimulatedWorker, float, Callable[[], None]]] = deque()
        self._is_busy = False

    def serve(self, worker: SimulatedWorker, for_s: float, then: Callable[[], None]) -> None:
        """Serve a worker in its turn, for some seconds; one that is gone by then is left out.

        Args:
            then: called when it has been served.
        """
        self._waiting.append((worker, for_s, then))
        if not self._is_busy:
            self._next()

    def _next(self) -> None:
        self._is_busy = False
        while self._waiting and not self._is_busy:
            worker, for_s, then = self._waiting.popleft()
            if not worker.is_gone:
                self._is_busy = True
                self._clock.after(for_s, self._end, then)

    def _end(self, then: Callable[[], None]) -> None:
        self._next()
        then()


class Farm:
    """A cluster of devices, eight in a machine, its store and its driver, in virtual time."""

    def __init__(self, conditions: Conditions) -> None:
        self.conditions = conditions
        self.clock = VirtualClock()
        self.random = random.Random(conditions.seed)
        self.driver, self.store = Queue(self.clock), Queue(self.clock)
        self.when_free: list[Callable[[], None]] = []  # called when devices become free
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
        for place in self.when_free:
            place()

    def store_s(self, num_bytes: int) -> float:
        """Return the seconds for which a clip takes the whole of a store with limits; 0 without."""
        limits = self.conditions
        requests, rate = limits.store_requests_per_s, limits.store_bytes_per_s
        return max(
            0.0 if requests is None else REQUESTS_PER_CLIP / requests,
            0.0 if rate is None else num_bytes / rate,
        )


NODE = "machine-"


def node_name(machine: int) -> str:
    return f"{NODE}{machine}"
