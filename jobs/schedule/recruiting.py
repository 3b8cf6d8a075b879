"""The workers that are not ready yet: how many to ask for, when, and how long each may take.

A worker first waits for a place, its devices in the cluster. Waiting has no deadline and is charged
to nothing, since other jobs may hold the devices. Then the worker loads its model, which has one. A
node on which no model loads costs one worker of the wanted number; a store that is away costs only
time. Uses the schedule's clock alone. Loads without torch.
"""

from dataclasses import replace

from jobs.errors import ModelNotLoadedError, NoWorkersError
from jobs.schedule import events as ev
from jobs.schedule.attribution import NodeAttribution
from jobs.schedule.events import Command, WorkerId
from jobs.schedule.giving_back import give_back
from jobs.schedule.outage import Outage
from jobs.schedule.pool import Pool
from jobs.schedule.pooled_worker import LoadedWorker, Loading, Waiting
from jobs.settings.run_config import WorkerConfig

MAX_LOAD_FAILURES = 3  # in a row, before `num_wanted` is lowered


class Recruiting:
    """The wanted number of workers of one pool, and those that are on their way to it.

    Args:
        num_wanted: number of workers to keep.
        pool: workers that are there.
        outage: the store's outage, for the length of the back-off.
        attribution: the nodes that get no new workers.
    """

    def __init__(
        self,
        config: WorkerConfig,
        num_wanted: int,
        pool: Pool,
        outage: Outage,
        attribution: NodeAttribution,
    ) -> None:
        self._num_wanted = num_wanted
        self._most_useful: int | None = None  # once other kinds wait for places
        self._most: int | None = None  # while other runs want devices
        self._config = config
        self._pool = pool
        self._outage = outage
        self._attribution = attribution
        self._cordoned = frozenset[str]()  # as for all workers that wait for a place
        self._next_worker: WorkerId = 0
        self._most_wanted = num_wanted  # without regard to failures
        self._num_failures = 0
        self._not_before = 0.0  # back-off while the store lets no worker load
        self._back_off_s = 0.0
        self._lacking_since: float | None = None  # no node has room, and no worker has a place

    @property
    def num_wanted(self) -> int:
        """Return the number of workers to keep."""
        limits = (self._num_wanted, self._most_useful, self._most)
        return min(limit for limit in limits if limit is not None)

    @property
    def num_usable(self) -> int:
        """Return the number of workers to keep if no other run wanted devices."""
        if self._most_useful is None:
            return self._num_wanted
        return min(self._num_wanted, self._most_useful)

    def limit(self, most_useful: int) -> None:
        """Keep no more workers than the last clips can use, since other kinds wait for places."""
        self._most_useful = most_useful

    def release(self, nodes_in_use: set[str]) -> list[Command]:
        """End workers without clips that are more than wanted; those that have not loaded first.

        Args:
            nodes_in_use: nodes whose workers go last.
        """
        num_spare = len(self._pool.workers) - self.num_wanted
        if num_spare <= 0:
            return []

        def order(number: WorkerId) -> tuple[bool, bool, bool, int]:
            worker = self._pool.workers[number]
            is_loaded = isinstance(worker, LoadedWorker)
            is_in_use = is_loaded and worker.node in nodes_in_use
            return not isinstance(worker, Waiting), is_loaded, is_in_use, -number

        free = [
            number
            for number, worker in self._pool.workers.items()
            if not (isinstance(worker, LoadedWorker) and worker.attempts)
        ]
        free.sort(key=order)
        for number in free[:num_spare]:
            self._pool.remove(number)
        return [ev.ReleaseWorker(number) for number in free[:num_spare]]

    def exclude_gap(self, gap_s: float) -> None:
        """Leave `gap_s` seconds in which the driver slept out of all durations."""
        for number, worker in list(self._pool.coming.items()):
            self._pool.put(number, replace(worker, asked_at=worker.asked_at + gap_s))
        if self._lacking_since is not None:
            self._lacking_since += gap_s

    def recruit(self, now: float) -> list[Command]:
        """Ask for workers until there are as many as wanted.

        Those that wait for a place are asked for anew whenever other nodes are cordoned.
        """
        commands: list[Command] = []
        cordoned = self._attribution.cordoned(self._pool.nodes)
        if cordoned != self._cordoned:
            self._cordoned = cordoned
            for number, worker in list(self._pool.coming.items()):
                if isinstance(worker, Waiting) and worker.cordoned != cordoned:
                    self._pool.remove(number)
                    message = "asked for anew, since other nodes are cordoned"
                    commands.append(ev.StopWorker(number, message, is_lost=False))
        while len(self._pool.workers) < self.num_wanted and now >= self._not_before:
            self._pool.put(self._next_worker, Waiting(now, cordoned))
            commands.append(ev.StartWorker(self._next_worker, cordoned))
            self._next_worker += 1
        return commands

    def room_seen(self, event: ev.RoomSeen, now: float) -> list[Command]:
        """Follow a cluster that grows, and this run's share of it; halt without room for too long.

        The number does not follow a cluster that shrinks: a node that left may be replaced.
        """
        self._most = event.most
        commands = give_back(self._pool, event.most, event.wanted_on)
        self._num_wanted += max(0, event.num_wanted - self._most_wanted)
        self._most_wanted = max(event.num_wanted, self._most_wanted)
        has_place = bool(self._pool.loaded) or any(
            isinstance(one, Loading) for one in self._pool.coming.values()
        )
        if event.lacking is None or has_place:
            self._lacking_since = None
            return commands
        if self._lacking_since is None:
            self._lacking_since = now
        limit_s = self._config.wait_for_resources_s
        if limit_s is None or now - self._lacking_since < limit_s:
            return commands
        waited = f" within {limit_s:g} s (workers.wait_for_resources_s)" if limit_s else ""
        return [ev.Halt(NoWorkersError(f"no room for a worker{waited}: {event.lacking}"))]

    def placed(self, event: ev.WorkerPlaced, now: float) -> list[Command]:
        """Start the deadline of a worker that has got its devices."""
        if isinstance(self._pool.coming.get(event.worker), Waiting):
            self._pool.put(event.worker, Loading(now))
        return []

    def record_loaded(self) -> None:
        """Reset the count of failures and the back-off."""
        self._num_failures = 0
        self._back_off_s = 0.0

    def not_loaded(self, event: ev.WorkerNotLoaded, now: float) -> list[Command]:
        """Stop a worker that failed to load; halt the run if none can load."""
        if event.worker not in self._pool.coming:
            return []
        self._pool.remove(event.worker)
        commands: list[Command] = [ev.StopWorker(event.worker, event.message)]
        if event.is_store:
            self._back_off_s = self._outage.next_back_off(self._back_off_s)
            self._not_before = now + self._back_off_s
            is_computing = self._pool.is_run_computing
            error = self._outage.record_refusal(now, event.message, is_computing=is_computing)
        else:
            error = self._charge(event, now) if event.is_charged else None
        return commands if error is None else [*commands, ev.Halt(error)]

    def check_deadlines(self, now: float) -> list[Command]:
        """Stop the workers that load for too long."""
        limit_s = self._config.load_timeout_s
        message = f"not ready within {limit_s:g} s (workers.load_timeout_s)"
        return [
            command
            for number, worker in list(self._pool.coming.items())
            if isinstance(worker, Loading) and now - worker.asked_at > limit_s
            for command in self.not_loaded(ev.WorkerNotLoaded(number, message), now)
        ]

    def _charge(self, failed: ev.WorkerNotLoaded, now: float) -> ModelNotLoadedError | None:
        """Count a failed load. After MAX_LOAD_FAILURES in a row, lower num_wanted by one.

        Returns:
            The error that ends the work on the model if no worker is left; None otherwise.
        """
        self._num_failures += 1
        if not (failed.is_final or self._num_failures >= MAX_LOAD_FAILURES):
            return None
        # others wait for the store, and are started again after the back-off
        is_waiting = now < self._not_before and self._num_wanted > 1
        if not self._pool.workers and not is_waiting:
            return ModelNotLoadedError(f"no worker could be started: {failed.message}")
        self._num_wanted -= 1
        self._num_failures = 0
        return None
