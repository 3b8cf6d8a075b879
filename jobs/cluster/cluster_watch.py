"""The watch on the cluster during a run: whether it answers, and which nodes it has and drains.

Ray's calls wait until the cluster's control service answers, also in the main thread, and after a
minute without it Ray ends this process without a word. So one thread asks and may wait for ever,
and another one judges: it tells the dispatch loop that the cluster is lost, and if even that is
held by Ray, it ends the process while there is time to release the output.

A control service that is started again meanwhile, as under KubeRay's fault tolerance, costs
nothing: workers render on, and Ray reconnects. Seen with ray 2.60.
"""

import os
import threading
from collections.abc import Callable
from typing import Self

import ray.exceptions

from jobs.cluster.joined_cluster import ClusterView
from jobs.errors import ClusterLostError
from jobs.side_thread import SideThread

RAY_LIMIT = "RAY_gcs_rpc_server_reconnect_timeout_s"  # after it, Ray ends its processes
RAY_LIMIT_S = 60.0  # its default
LATE, LOST, HELD = 0.25, 0.75, 0.9  # shares of that limit: say so, stop the run, end the process
ASK_S = 5.0  # between two questions
TURN_S = 0.5  # between two judgements
NO_ANSWER = "the control service of the Ray cluster has not answered"
NO_NODE = "no node of the Ray cluster has been alive"
REFUSES = "the Ray cluster has answered with errors"


def ray_limit_s() -> float:
    """Return the seconds without a control service after which Ray ends this process."""
    return float(os.environ.get(RAY_LIMIT, RAY_LIMIT_S))


class ClusterWatch:
    """Threads that watch the cluster inside a `with` block.

    Args:
        end_held: ends the process if the block still runs long after the cluster was lost; gets the
            reason.
        look: asks the cluster; it may wait for ever.
        first: an answer from before.
        limit_s: Ray's limit, of which the watch takes shares.
        ask_s, turn_s: seconds between two questions, and between two judgements.
    """

    def __init__(
        self,
        end_held: Callable[[str], None],
        look: Callable[[], ClusterView],
        first: ClusterView,
        limit_s: float | None = None,
        ask_s: float = ASK_S,
        turn_s: float = TURN_S,
    ) -> None:
        self._end_held = end_held
        self._look = look
        self._limit_s = ray_limit_s() if limit_s is None else limit_s
        self._ask_s = ask_s
        self._turn_s = turn_s
        self._trouble = NO_ANSWER
        self._num_good = 0  # answers of a cluster with a node
        self._news: list[str] = []
        self._is_over = threading.Event()
        self._threads = [
            SideThread("cluster-asking", self._ask),
            SideThread("cluster-judging", self._judge),
        ]
        self.view = first  # the latest answer
        self.lost: str | None = None  # why the cluster counts as lost

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()  # no thread is awaited: Ray may hold one

    def check(self) -> None:
        """Raise if the run has no cluster any more; the driver calls it in its loop.

        Raises:
            ClusterLostError: the cluster is lost.
            SideThreadError: a thread has died.
        """
        for thread in self._threads:
            thread.check()
        if self.lost is not None:
            raise ClusterLostError(self.lost)

    def news(self) -> list[str]:
        """Return what has changed about the cluster's health since the last call."""
        found, self._news = self._news, []
        return found

    def _ask(self) -> None:
        while True:
            try:
                view = self._look()
            except ray.exceptions.RayError:
                self._trouble = REFUSES
            else:
                self.view = view
                self._trouble = NO_ANSWER if view.nodes else NO_NODE
                self._num_good += len(view.nodes) > 0
            if self._is_over.wait(self._ask_s):
                return

    def _judge(self) -> None:
        """Count turns and not the clock, since a suspended machine must find its cluster again."""
        num_seen, silent_s, is_late = 0, 0.0, False
        while not self._is_over.wait(self._turn_s):
            silent_s += self._turn_s
            if self._num_good != num_seen:
                if is_late:
                    self._news.append("the Ray cluster answers again")
                num_seen, silent_s, is_late = self._num_good, 0.0, False
            elif silent_s >= HELD * self._limit_s and self.lost:
                self._end_held(self.lost)
            elif silent_s >= LOST * self._limit_s:
                self.lost = f"{self._trouble} for {silent_s:.0f} s; run it again to go on"
            elif silent_s >= LATE * self._limit_s and not is_late:
                is_late = True
                stop_s = LOST * self._limit_s
                self._news.append(
                    f"{self._trouble} for {silent_s:.0f} s; the run stops after {stop_s:.0f} s"
                )
