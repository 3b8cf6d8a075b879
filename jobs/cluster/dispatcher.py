"""The dispatch loop of a run: one thin loop around `Answers` for the workers of all its kinds.

An answer costs the same with any number of workers; all that grows with them is done once a turn.
The kinds of worker begin in the order of the plan. A kind begins as soon as places are free for it,
also while workers of the kinds before it still render (`jobs.schedule.sharing` decides).
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jobs.cluster.answers import Answer, Answers
from jobs.cluster.joined_cluster import ClusterView
from jobs.cluster.observer import Observer
from jobs.cluster.worker_pool import PoolPlan, WorkerPool
from jobs.errors import ClusterLostError, ModelFailedError, StoppedError
from jobs.plan.worker_kinds import WorkerKind
from jobs.schedule import events as ev
from jobs.schedule.schedule import Schedule
from jobs.schedule.sharing import Share, first_with_room, room_seen
from jobs.settings.run_config import RunConfig
from jobs.shares.run_shares import NO_LIMIT, Limit, RunShares

WAIT_S = 0.5  # the longest turn of the loop, in which no answer comes
TURN_S = 0.1  # the rest of a turn after its first answer


@dataclass(frozen=True, eq=False)
class FailedPool:
    """A kind of worker whose clips could not go on.

    Args:
        num_committed: clips of this kind that the run had committed by then.
    """

    kind: WorkerKind
    error: ModelFailedError
    num_committed: int


class Dispatcher:
    """Renders the clips of a run.

    Args:
        config: the settings of the run.
        observer: receives the events.
        look: returns the latest view of the cluster, without waiting for it.
        run_shares: the share of this run beside others; None if it keeps what it has.
        seconds_left: returns the seconds until the deadline of the run; None without one.
    """

    def __init__(
        self,
        config: RunConfig,
        observer: Observer,
        look: Callable[[], ClusterView],
        run_shares: RunShares | None = None,
        seconds_left: Callable[[], float] | None = None,
    ) -> None:
        self._config = config
        self._observer = observer
        self._look = look
        self._run_shares = run_shares
        self._seconds_left = seconds_left
        self._pools: list[WorkerPool] = []
        self._coming: list[PoolPlan] = []  # kinds that have not begun
        self._failed: list[FailedPool] = []
        self._stopped: StoppedError | None = None
        self._stop_reason: str | None = None
        self._answers = Answers()
        self._num_begun = 0

    def request_stop(self, reason: str) -> None:
        """End the run soon; clips in flight have `workers.drain_s` to finish.

        Safe in a signal handler: it takes no lock, which the interrupted thread may hold.
        """
        self._stop_reason = reason

    def run(self, plans: Iterable[PoolPlan]) -> list[FailedPool]:
        """Render all clips; return when none is left to start and none is in flight.

        Returns:
            The kinds whose model failed. They stop no other kind.

        Raises:
            StoreRefusedError: the store takes no more clips.
            StoreUnavailableError: the store has taken no clip for too long.
            StoppedError: `request_stop` was called, or the deadline came.
        """
        self._coming = list(plans)
        try:
            self._begin_kinds()
            while self._pools:
                self._turn()
                self._end_finished()
                self._begin_kinds()
        except ClusterLostError:
            raise  # a call to stop a worker would wait for the cluster
        except BaseException:
            for pool in self._pools:
                pool.stop_all()
            raise
        if self._stopped is None and self._coming:
            self._stopped = StoppedError(self._stop_reason or "")
        if self._stopped is not None:
            raise self._stopped
        return self._failed

    # the kinds

    def _begin_kinds(self) -> None:
        """Begin the kinds for which places are free; the next one in any case if none renders."""
        while self._coming and self._stop_reason is None:
            self._coming = [plan for plan in self._coming if plan.has_clips()]
            view = self._look()
            demands = [plan.demand(view) for plan in self._coming]
            found = first_with_room(demands, self._shares(), view.machines())
            if found is None:
                return
            index, num_workers = found
            limit = self._limits(view)[len(self._pools) + index].most
            if limit is not None:
                num_workers = min(num_workers, limit if self._pools else max(1, limit))
            if not num_workers:
                return
            plan = self._coming.pop(index)
            schedule = Schedule(self._config, num_workers, self._is_computing, plan.pace)
            share = Share(demands[index], schedule)
            pool = WorkerPool(
                self._num_begun, plan, share, self._config, self._observer, self._answers
            )
            self._num_begun += 1
            self._pools.append(pool)
            self._guard(pool, pool.start)

    def _limits(self, view: ClusterView) -> list[Limit]:
        """Return the most workers of each kind beside other runs: of pools, then of those to come.

        There is none without such runs, or if this run keeps what it has.
        """
        if self._run_shares is None:
            return [NO_LIMIT] * (len(self._pools) + len(self._coming))
        demands = [plan.demand(view) for plan in self._coming]
        return self._run_shares.limits(self._shares(), demands, view.open_nodes(), time.monotonic())

    def _is_computing(self) -> bool:
        return any(pool.schedule.is_computing for pool in self._pools)

    def _end_finished(self) -> None:
        for pool in [pool for pool in self._pools if pool.schedule.is_finished]:
            self._pools.remove(pool)
            pool.release_all()

    def _guard(self, pool: WorkerPool, act: Callable[[], None]) -> None:
        """Let a pool act; end it, and no other one, if its model failed or the run is to stop."""
        try:
            act()
        except ModelFailedError as error:
            self._pools.remove(pool)
            pool.release_all()
            self._failed.append(FailedPool(pool.kind, error, pool.schedule.num_done))
            self._observer.model_failed(pool.kind.model, error)
        except StoppedError as error:
            self._stopped = error
            self._pools.remove(pool)
            pool.stop_all()

    def _shares(self, besides: WorkerPool | None = None) -> list[Share]:
        return [pool.share for pool in self._pools if pool is not besides]

    # a turn of the loop

    def _turn(self) -> None:
        """Handle the events of at most `WAIT_S` seconds as they come, `Tick`s last."""
        for pool in self._pools:
            pool.ask_for_heartbeats()
        end_s = time.monotonic() + WAIT_S
        while not self._is_one_finished() and (left_s := end_s - time.monotonic()) > 0:
            if answers := self._answers.wait(left_s):
                end_s = min(end_s, time.monotonic() + TURN_S)
                self._handle_answers(answers)
        view = self._look()
        pools, limits = list(self._pools), self._limits(view)
        for pool, limit in zip(pools, limits, strict=False):
            for event in self._news(pool, view, limit):
                self._handle(pool, event)
        words = [pool.waiting(view, self._shares(pool)) for pool in self._pools]
        self._observer.workers_waiting(", and ".join(filter(None, words)) or None)
        loading = [position for pool in self._pools for position in pool.loading()]
        self._observer.workers_loading(loading)
        self._observer.workers_counted([pool.counts() for pool in self._pools])
        self._observer.tick()

    def _is_one_finished(self) -> bool:
        return not self._pools or any(pool.schedule.is_finished for pool in self._pools)

    def _handle_answers(self, answers: Iterable[Answer]) -> None:
        """Handle the events of answers that came together.

        Losses come last, so that clips that ended before their worker died are not attributed to
        it.
        """
        pools = {pool.number: pool for pool in self._pools}
        lost: list[tuple[WorkerPool, ev.WorkerLost]] = []
        for answer in answers:
            pool = pools.get(answer.pool)
            if pool is None or pool not in self._pools:
                continue
            event = pool.event_of(answer)
            if isinstance(event, ev.WorkerLost):
                lost.append((pool, event))
            elif event is not None:
                self._handle(pool, event)
        for pool, event in lost:
            self._handle(pool, event)

    def _news(self, pool: WorkerPool, view: ClusterView, limit: Limit) -> Iterator[ev.Event]:
        """Yield the events of a pool that come from no worker, a `Tick` last.

        Args:
            limit: workers above which some are given to other runs.
        """
        if self._stop_reason is not None:
            yield ev.StopRequested(self._stop_reason)
        if self._seconds_left is not None:
            yield ev.TimeLeft(self._seconds_left(), pool.has_clips())
        yield ev.NodesDraining(view.draining)
        if view.nodes:  # without a node, the watch on the cluster ends the run
            yield room_seen(
                pool.share,
                self._shares(pool),
                view.machines(),
                are_places_wanted=bool(self._coming) or view.may_grow,
                most=limit.most,
                wanted_on=limit.on,
            )
        yield ev.Tick()

    def _handle(self, pool: WorkerPool, event: ev.Event) -> None:
        if pool in self._pools:  # an event before this one may have ended it
            self._guard(pool, lambda: pool.handle(event))
