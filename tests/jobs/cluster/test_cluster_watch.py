"""The watch on a cluster that does not answer, has no node left, or comes back."""

import threading
from collections.abc import Callable

import ray.exceptions

from jobs.cluster.cluster_watch import ClusterWatch
from jobs.cluster.joined_cluster import ClusterView

HEALTHY = ClusterView({"going": {"CPU": 4.0}, "stays": {"CPU": 2.0}}, frozenset({"going"}))
EMPTY = ClusterView()
WAIT_S = 20.0


class Ended(threading.Event):
    """Stands for the end of the process."""

    reason = ""

    def __call__(self, reason: str) -> None:
        self.reason = reason
        self.set()


def watch(look: Callable[[], ClusterView], ended: Ended) -> ClusterWatch:
    return ClusterWatch(ended, look, EMPTY, limit_s=1.0, ask_s=0.02, turn_s=0.05)


def test_a_cluster_that_does_not_answer_is_said_then_lost_and_then_the_process_is_ended() -> None:
    ended, never = Ended(), threading.Event()

    def look() -> ClusterView:
        never.wait()
        return HEALTHY

    with watch(look, ended) as watched:
        assert watched.lost is None
        assert ended.wait(WAIT_S)
        never.set()
    assert watched.lost == ended.reason
    assert ended.reason.startswith(
        "the control service of the Ray cluster has not answered for 1 s"
    )
    (message,) = watched.news()
    assert message.endswith("the run stops after 1 s")
    assert watched.news() == []


def test_a_cluster_without_a_node_is_lost() -> None:
    ended = Ended()
    with watch(lambda: EMPTY, ended):
        assert ended.wait(WAIT_S)
    assert "no node of the Ray cluster has been alive for 1 s" in ended.reason


def test_a_cluster_that_answers_with_errors_is_lost() -> None:
    ended = Ended()

    def look() -> ClusterView:
        raise ray.exceptions.RaySystemError("not connected")

    with watch(look, ended):
        assert ended.wait(WAIT_S)
    assert "has answered with errors" in ended.reason


def test_a_cluster_that_comes_back_is_not_lost() -> None:
    ended, is_said = Ended(), threading.Event()

    def look() -> ClusterView:
        is_said.wait(WAIT_S)
        return HEALTHY

    news: list[str] = []
    with watch(look, ended) as watched:
        while len(news) < 2:
            news += watched.news()
            if news:
                is_said.set()
        assert watched.view.machines() == [{"CPU": 2.0}]
        assert watched.lost is None
        assert not ended.wait(1.5)  # longer than the limit
    assert news[1] == "the Ray cluster answers again"


def test_a_run_that_ends_is_not_ended_again() -> None:
    ended = Ended()
    with watch(lambda: EMPTY, ended):
        pass
    assert not ended.wait(1.5)  # longer than the limit
