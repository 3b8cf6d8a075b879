"""The workers of a run, and the slots that they have for clips at one moment.

Decides which worker takes an attempt: which are open, which are reserved for a suspect, and to
which node an encoded clip must go. Loads without torch.
"""

from collections.abc import Iterable

from jobs.schedule.events import Attempt, WorkerId
from jobs.schedule.pooled_worker import LoadedWorker, PooledWorker, Retiring


class Pool:
    """The workers by their number.

    Args:
        room: number of clips that one worker holds at once.
        patience_s: seconds that an encoded clip waits for a worker that may load on its node.
    """

    def __init__(self, room: int, patience_s: float) -> None:
        self._room = room
        self._patience_s = patience_s
        self.workers: dict[WorkerId, PooledWorker] = {}

    @property
    def loaded(self) -> dict[WorkerId, LoadedWorker]:
        """Return the workers that have loaded their model."""
        return {
            number: worker
            for number, worker in self.workers.items()
            if isinstance(worker, LoadedWorker)
        }

    def find_loaded(self, number: WorkerId) -> LoadedWorker | None:
        """Return a loaded worker, or None if it loads or was already replaced."""
        worker = self.workers.get(number)
        return worker if isinstance(worker, LoadedWorker) else None

    @property
    def is_busy(self) -> bool:
        """Return True if any clip is in flight."""
        return any(
            isinstance(worker, LoadedWorker) and worker.attempts for worker in self.workers.values()
        )

    @property
    def is_computing(self) -> bool:
        """Return True if a worker was computing a clip at its last heartbeat."""
        return any(worker.is_computing for worker in self.loaded.values())

    @property
    def nodes(self) -> set[str]:
        """Return the nodes of the workers that are not retiring."""
        return {
            node
            for worker in self.loaded.values()
            if not isinstance(worker.state, Retiring)
            for node in worker.nodes
        }

    def slots(self, now: float, num_wanted: int) -> "Slots":
        """Return the slots that are free now; they do not follow later changes of the pool.

        Args:
            num_wanted: number of workers that the pool should have.
        """
        since = now - self._patience_s
        is_filling = len(self.workers) < num_wanted or any(
            not isinstance(worker, LoadedWorker) and worker.asked_at >= since
            for worker in self.workers.values()
        )
        return Slots(self.loaded, self._room, now, is_filling=is_filling)


class Slots:
    """The open workers at one moment, and the choice of one for each attempt.

    Args:
        workers: loaded workers by their number.
        room: number of clips that one worker holds at once.
        is_filling: True if further workers are expected soon.
    """

    def __init__(
        self, workers: dict[WorkerId, LoadedWorker], room: int, now: float, *, is_filling: bool
    ) -> None:
        self._workers = workers
        self._room = room
        self._is_filling = is_filling
        self._num_attributable = {
            number: len(worker.attributable)
            for number, worker in workers.items()
            if worker.is_open(now)
        }
        # the least busy worker first
        self.open = sorted(
            self._num_attributable, key=lambda number: (self._num_attributable[number], number)
        )
        self._ready_nodes = {worker.node for worker in workers.values()}
        self._candidates: dict[tuple[str | None, frozenset[str]], list[WorkerId]] = {}

    def reserved_for_suspects(self, waiting: Iterable[Attempt]) -> set[WorkerId]:
        """Return the busy workers that get no clips, so that each suspect finds one to itself."""
        reserved: set[WorkerId] = set()
        for attempt in waiting:
            if len(reserved) == len(self.open):
                break
            if attempt.is_suspect:
                free = [number for number in self.candidates(attempt) if number not in reserved]
                if free and not self._is_idle(free[0]):
                    reserved.add(free[0])
        return reserved

    def choose(self, attempt: Attempt, reserved: set[WorkerId]) -> WorkerId | None:
        """Return the worker that takes an attempt now, or None if the attempt has to wait.

        A suspect gets a worker to itself: if it kills that one too, no other clip is charged.
        """
        for number in self.candidates(attempt):
            is_fit = self._is_idle(number) if attempt.is_suspect else number not in reserved
            if is_fit and self.has_room(number):
                return number
        return None

    def candidates(self, attempt: Attempt) -> list[WorkerId]:
        """Return the open workers that may take an attempt, the least busy first.

        They are, in order of preference: (1) those on the node that holds its encoded file, as
        long as a worker is or may soon be there; (2) those on nodes where no worker died with
        the clip, which shows whether the clip or the node is at fault; (3) all.
        """
        key = attempt.node, frozenset(node for _, node in attempt.losses)
        if key not in self._candidates:
            if attempt.node is not None and (attempt.node in self._ready_nodes or self._is_filling):
                found = [
                    number for number in self.open if self._workers[number].node == attempt.node
                ]
            else:
                found = [
                    number for number in self.open if not self._workers[number].nodes & key[1]
                ] or self.open
            self._candidates[key] = found
        return self._candidates[key]

    def recalls(self) -> list[tuple[WorkerId, str]]:
        """Return a clip to recall for each worker without one, with the worker that has it.

        It is the last clip in the longest queue. An encoded clip stays on its node.
        """
        idle = [number for number in self.open if self._is_idle(number) and self.has_room(number)]
        if not idle:
            return []
        queues: dict[WorkerId, list[str]] = {}
        for number, worker in self._workers.items():
            queued = [one.spec.clip_id for one in worker.queued if one.node is None]
            queues[number] = [clip_id for clip_id in queued if clip_id not in worker.recalled]
            del idle[: len(queued) - len(queues[number])]  # recalled ones are on their way
        found: list[tuple[WorkerId, str]] = []
        while len(found) < len(idle):
            longest = max(queues, key=lambda number: len(queues[number]))
            if not queues[longest]:
                break
            found.append((longest, queues[longest].pop()))
        return found

    def has_room(self, number: WorkerId) -> bool:
        worker = self._workers[number]
        return not worker.has_suspect and len(worker.attempts) < self._room

    def _is_idle(self, number: WorkerId) -> bool:
        """Return True if no clip of the worker could be charged with its loss."""
        return not self._num_attributable[number]
