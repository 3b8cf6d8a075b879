"""The workers of a run, kept in the order in which they get clips.

An event changes few workers, and only those are sorted in anew, so that an event costs as much with
a thousand workers as with ten. `slots` chooses among them. Loads without torch.
"""

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from heapq import heappop, heappush

from jobs.schedule.events import WorkerId
from jobs.schedule.pooled_worker import (
    LoadedWorker,
    Loading,
    Paused,
    PooledWorker,
    Ready,
    Retiring,
    Waiting,
)

Order = tuple[int, WorkerId]  # number of clips that a loss could be charged to, number of worker


@dataclass(frozen=True, slots=True)
class Standing:
    """A loaded worker as it was when it was sorted in.

    Args:
        is_open: True if it takes clips.
        opens_at: moment at which it will take clips again; None if it is not paused.
        has_room: True if it has room for a further clip.
        is_retired: True if it is retiring and has no clips in flight any more.
        nodes: its nodes; none if it is retiring.
        queue: clips that may be recalled from it, oldest first.
        num_returning: recalled clips that its device has not begun.
    """

    order: Order
    is_open: bool
    opens_at: float | None
    has_room: bool
    is_busy: bool
    is_retired: bool
    nodes: frozenset[str]
    queue: tuple[str, ...]
    num_returning: int


def standing_of(worker: LoadedWorker, room: int, *, is_open: bool) -> Standing:
    """Return the present standing of a worker.

    Args:
        room: number of clips that one worker holds at once.
    """
    state = worker.state
    is_retiring = isinstance(state, Retiring)
    # an encoded clip stays on its node
    queued = [one.spec.clip_id for one in worker.queued if one.node is None]
    queue = tuple(clip_id for clip_id in queued if clip_id not in worker.recalled)
    return Standing(
        order=(len(worker.attributable), worker.number),
        is_open=is_open,
        opens_at=state.until if isinstance(state, Paused) else None,
        has_room=worker.has_room(room),
        is_busy=bool(worker.attempts),
        is_retired=is_retiring and not worker.attempts,
        nodes=frozenset() if is_retiring else worker.nodes,
        queue=queue,
        num_returning=len(queued) - len(queue),
    )


class Pool:
    """The workers by their number.

    A loaded worker is changed only through `change` and `find_loaded`, and in the same event: the
    pool looks at it once more before its next answer.

    Args:
        room: number of clips that one worker holds at once.
        patience_s: seconds that an encoded clip waits for a worker that may load on its node.
        is_computing_elsewhere: returns True if a worker of another kind computes a clip.
    """

    def __init__(
        self, room: int, patience_s: float, is_computing_elsewhere: Callable[[], bool]
    ) -> None:
        self._room = room
        self._patience_s = patience_s
        self._is_computing_elsewhere = is_computing_elsewhere
        self.workers: dict[WorkerId, PooledWorker] = {}
        self.coming: dict[WorkerId, Waiting | Loading] = {}
        self.loaded: dict[WorkerId, LoadedWorker] = {}
        self._changed: set[WorkerId] = set()
        self._standings: dict[WorkerId, Standing] = {}
        self._open: list[Order] = []
        self._roomy: list[Order] = []
        self._busy: set[WorkerId] = set()
        self._retired: set[WorkerId] = set()
        self._queues: dict[WorkerId, tuple[str, ...]] = {}
        self._num_returning = 0
        self._nodes: Counter[str] = Counter()
        self._leader_nodes: Counter[str] = Counter()
        self._pauses: list[tuple[float, WorkerId]] = []  # a heap; some may be over

    def put(self, number: WorkerId, worker: PooledWorker) -> None:
        """Add a worker, or replace it by its next state."""
        self.workers[number] = worker
        if isinstance(worker, LoadedWorker):
            self.coming.pop(number, None)
            self.loaded[number] = worker
            self._leader_nodes[worker.node] += 1
            self._changed.add(number)
        else:
            self.coming[number] = worker

    def remove(self, number: WorkerId) -> None:
        del self.workers[number]
        self.coming.pop(number, None)
        worker = self.loaded.pop(number, None)
        if worker is not None:
            _subtract(self._leader_nodes, {worker.node})
            self._changed.add(number)

    def find_loaded(self, number: WorkerId) -> LoadedWorker | None:
        """Return a loaded worker to change it, or None if it loads or was already replaced."""
        return self.change(number) if number in self.loaded else None

    def change(self, number: WorkerId) -> LoadedWorker:
        """Return a loaded worker to change it."""
        self._changed.add(number)
        return self.loaded[number]

    @property
    def is_busy(self) -> bool:
        """Return True if any clip is in flight."""
        self._refresh()
        return bool(self._busy)

    @property
    def is_computing(self) -> bool:
        """Return True if a worker was computing a clip at its last heartbeat."""
        return any(worker.is_computing for worker in self.loaded.values())

    @property
    def is_run_computing(self) -> bool:
        """Return True if any worker of the run was computing a clip at its last heartbeat."""
        return self.is_computing or self._is_computing_elsewhere()

    @property
    def num_useful(self) -> int:
        """Return the number of workers that the clips in flight can use.

        That is one for each worker that has clips, and one for each clip that it could hand on.
        """
        queues, num_returning = self.queues()
        return len(self._busy) + sum(map(len, queues.values())) + num_returning

    @property
    def retired(self) -> list[WorkerId]:
        """Return the workers that are retiring and have no clips in flight any more."""
        self._refresh()
        return sorted(self._retired)

    @property
    def nodes(self) -> AbstractSet[str]:
        """Return the nodes of the workers that are not retiring."""
        self._refresh()
        return self._nodes.keys()

    @property
    def leader_nodes(self) -> AbstractSet[str]:
        """Return the nodes on which loaded workers encode their clips."""
        return self._leader_nodes.keys()

    def is_filling(self, now: float, num_wanted: int) -> bool:
        """Return True if further workers are expected soon.

        Args:
            num_wanted: number of workers that the pool should have.
        """
        since = now - self._patience_s
        return len(self.workers) < num_wanted or any(
            worker.asked_at >= since for worker in self.coming.values()
        )

    def open(self, now: float) -> tuple[list[Order], list[Order]]:
        """Return the open workers, and those of them that have room, the least busy first.

        The lists follow later changes of the pool.
        """
        self._refresh()
        while self._pauses and self._pauses[0][0] <= now:
            _, number = heappop(self._pauses)
            worker = self.loaded.get(number)
            if worker is not None and worker.is_open(now):
                self._sort_in(number, standing_of(worker, self._room, is_open=True))
        return self._open, self._roomy

    def queues(self) -> tuple[dict[WorkerId, tuple[str, ...]], int]:
        """Return the clips that may be recalled, oldest first, of each worker that has any.

        The number behind them is that of recalled clips which are on their way back.
        """
        self._refresh()
        return self._queues, self._num_returning

    def _refresh(self) -> None:
        """Sort in the workers that may have changed."""
        for number in self._changed:
            worker = self.loaded.get(number)
            is_ready = worker is not None and isinstance(worker.state, Ready)
            self._sort_in(number, worker and standing_of(worker, self._room, is_open=is_ready))
        self._changed.clear()

    def _sort_in(self, number: WorkerId, new: Standing | None) -> None:
        old = self._standings.get(number)
        if new == old:
            return
        if old is not None:
            self._take_out(number, old)
        if new is not None:
            self._put_in(number, new)

    def _take_out(self, number: WorkerId, old: Standing) -> None:
        del self._standings[number]
        if old.is_open:
            del self._open[bisect_left(self._open, old.order)]
            if old.has_room:
                del self._roomy[bisect_left(self._roomy, old.order)]
        self._busy.discard(number)
        self._retired.discard(number)
        _subtract(self._nodes, old.nodes)
        self._queues.pop(number, None)
        self._num_returning -= old.num_returning

    def _put_in(self, number: WorkerId, new: Standing) -> None:
        self._standings[number] = new
        if new.is_open:
            insort(self._open, new.order)
            if new.has_room:
                insort(self._roomy, new.order)
        elif new.opens_at is not None:
            heappush(self._pauses, (new.opens_at, number))
        if new.is_busy:
            self._busy.add(number)
        if new.is_retired:
            self._retired.add(number)
        self._nodes.update(new.nodes)
        if new.queue:
            self._queues[number] = new.queue
        self._num_returning += new.num_returning


def _subtract(counter: Counter[str], nodes: AbstractSet[str]) -> None:
    """Count one less of each, and forget those of which none is left."""
    for node in nodes:
        counter[node] -= 1
        if not counter[node]:
            del counter[node]
