"""The workers whose places a run gives to other runs: which ones, and when each of them ends.

A worker that renders ends after its clip; the clips behind that one go to other workers. No worker
goes from a node on which no other run could use its place. Loads without torch.
"""

from collections import Counter
from collections.abc import Iterable

from jobs.schedule import events as ev
from jobs.schedule.events import Command, WorkerId
from jobs.schedule.pool import Pool
from jobs.schedule.pooled_worker import LoadedWorker, PooledWorker, Ready, Retiring, Waiting

REASON = "its place is for another run (workers.share)"


def num_placed(pool: Pool) -> int:
    """Return the number of workers that have their devices."""
    return len(pool.workers) - sum(isinstance(one, Waiting) for one in pool.coming.values())


def give_back(
    pool: Pool, most: int | None, wanted_on: frozenset[str] | None = None
) -> list[Command]:
    """Let workers go that are more than a run's share; one that was to go stays if it grew since.

    Args:
        most: the share; None if no other run wants devices.
        wanted_on: nodes on which others want places; None for every node.
    """
    retiring = {
        number: one for number, one in pool.loaded.items() if isinstance(one.state, Retiring)
    }
    num_over = 0 if most is None else len(pool.workers) - len(retiring) - most
    if most is None or num_over < 0:
        given = [number for number, one in retiring.items() if one.is_given_back]
        for number in given if most is None else given[:-num_over]:
            pool.change(number).state = Ready()
        return []
    if num_over == 0:
        return []
    free = [
        number
        for number, worker in pool.workers.items()
        if number not in retiring and _is_wanted(worker, wanted_on)
    ]
    going = order_to_go(pool, free)
    return [command for number in going[:num_over] for command in _let_go(pool, number)]


def _is_wanted(worker: PooledWorker, nodes: frozenset[str] | None) -> bool:
    """Return True if another run wants the place of a worker; that of one that loads is unknown."""
    if nodes is None or isinstance(worker, Waiting):
        return True
    return isinstance(worker, LoadedWorker) and not nodes.isdisjoint(worker.nodes)


def order_to_go(pool: Pool, among: Iterable[WorkerId]) -> list[WorkerId]:
    """Return workers in the order in which a run gives them back, those that it misses least first.

    They wait for a place, load, have no clip, or render. Workers of one node come one after the
    other, so that a group may find its devices there.
    """
    num_on = Counter(worker.node for worker in pool.loaded.values())

    def order(number: WorkerId) -> tuple[bool, bool, bool, int, str, int]:
        worker = pool.workers[number]
        if not isinstance(worker, LoadedWorker):
            return not isinstance(worker, Waiting), False, False, 0, "", -number
        return True, True, bool(worker.attempts), num_on[worker.node], worker.node, -number

    return sorted(among, key=order)


def _let_go(pool: Pool, number: WorkerId) -> list[Command]:
    worker = pool.find_loaded(number)
    if worker is None or not worker.attempts:
        pool.remove(number)
        return [ev.ReleaseWorker(number, REASON)]
    worker.state = Retiring(REASON, is_given_back=True)
    # an encoded clip stays on its node
    queued = [one.spec.clip_id for one in worker.queued if one.node is None]
    recalled = [clip_id for clip_id in queued if clip_id not in worker.recalled]
    worker.recalled.update(recalled)
    return [ev.RecallClip(number, clip_id) for clip_id in recalled]
