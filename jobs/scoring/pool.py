"""The seam between a scoring run and the workers that do it, and the workers of this process.

`jobs.cluster.scoring` has those on Ray.
"""

from collections.abc import Iterable, Iterator
from typing import Protocol

from jobs.scoring.clip_scorer import ClipScorer
from jobs.scoring.tasks import ScoringSetup, Task, TaskOutcome


class Pool(Protocol):
    """Workers that do tasks, in any order."""

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        """Yield the outcome of each task; take a task only when a worker has room for it.

        Raises:
            RefusedError: a worker cannot load the measures.
            StoppedError: no worker is left.
        """
        ...


class PoolHere:
    """One worker in this process, for an output of few clips."""

    def __init__(self, setup: ScoringSetup) -> None:
        self._scorer = ClipScorer(setup)
        self._is_loaded = False

    def run(self, tasks: Iterable[Task]) -> Iterator[TaskOutcome]:
        for task in tasks:
            if not self._is_loaded:
                self._scorer.load()
                self._is_loaded = True
            yield self._scorer.do(task)
