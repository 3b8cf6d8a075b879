"""The slots that workers have for clips at one moment.

Decides which worker takes an attempt: which are open, which are reserved for a suspect, to which
node an encoded clip must go, and which queued clips are recalled. Loads without torch.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cached_property
from heapq import heapify, heapreplace

from jobs.schedule.events import Attempt, WorkerId
from jobs.schedule.pool import Order, Pool


class Slots:
    """The open workers at one moment, and the choice of one for each attempt.

    It does not outlive a change of the pool.

    Args:
        pool: the workers.
        num_wanted: number of workers that the pool should have.
    """

    def __init__(self, pool: Pool, now: float, num_wanted: int) -> None:
        self._pool = pool
        self._now = now
        self._num_wanted = num_wanted
        self._open, self._roomy = pool.open(now)

    def has_room(self, reserved: set[WorkerId]) -> bool:
        """Return True if an open worker that is not reserved has room for a clip."""
        return any(number not in reserved for _, number in self._roomy)

    def reserved_for_suspects(self, waiting: Iterable[Attempt]) -> set[WorkerId]:
        """Return the busy workers that get no clips, so that each suspect finds one to itself."""
        reserved: set[WorkerId] = set()
        for attempt in waiting:
            if len(reserved) == len(self._open):
                break
            if attempt.is_suspect:
                candidates = self._candidates(attempt, self._open)
                free = next((order for order in candidates if order[1] not in reserved), None)
                if free is not None and not _is_idle(free):
                    reserved.add(free[1])
        return reserved

    def choose(self, attempt: Attempt, reserved: set[WorkerId]) -> WorkerId | None:
        """Return the worker that takes an attempt now, or None if the attempt has to wait.

        A suspect gets a worker to itself: if it kills that one too, no other clip is charged.
        """
        for order in self._candidates(attempt, self._roomy):
            if attempt.is_suspect and not _is_idle(order):
                return None  # nor is a later one idle
            if attempt.is_suspect or order[1] not in reserved:
                return order[1]
        return None

    def _candidates(self, attempt: Attempt, among: list[Order]) -> Iterator[Order]:
        """Yield the workers that may take an attempt, the least busy first.

        They are, in order of preference: (1) those on the node that holds its encoded file, as
        long as a worker is or may soon be there; (2) those on nodes where no worker died with
        the clip, which shows whether the clip or the node is at fault; (3) all.

        Args:
            among: all open workers, or those that have room.
        """
        loaded, node = self._pool.loaded, attempt.node
        if node is not None and (node in self._pool.leader_nodes or self._is_filling):
            return (order for order in among if loaded[order[1]].node == node)
        lost = frozenset(node for _, node in attempt.losses)
        if lost and any(not loaded[number].nodes & lost for _, number in self._open):
            return (order for order in among if not loaded[order[1]].nodes & lost)
        return iter(among)

    @cached_property
    def _is_filling(self) -> bool:
        return self._pool.is_filling(self._now, self._num_wanted)

    def recalls(self) -> list[tuple[WorkerId, str]]:
        """Return a clip to recall for each worker without one, with the worker that has it.

        It is the last clip in the longest queue. An encoded clip stays on its node.
        """
        num_idle = bisect_left(self._roomy, (1,))
        queues, num_returning = self._pool.queues()
        num_recalls = num_idle - num_returning  # recalled ones are on their way
        if num_recalls <= 0 or not queues:
            return []
        left = {number: list(queue) for number, queue in queues.items()}
        longest = [(-len(queue), number) for number, queue in left.items()]
        heapify(longest)
        found: list[tuple[WorkerId, str]] = []
        while len(found) < num_recalls and longest[0][0]:
            number = longest[0][1]
            found.append((number, left[number].pop()))
            heapreplace(longest, (-len(left[number]), number))
        return found


def _is_idle(order: Order) -> bool:
    """Return True if no clip of the worker could be charged with its loss."""
    return not order[0]
