"""The Ray actor around one worker of a scoring run."""

from typing import Any

import ray

from jobs.escaping import escape_logs
from jobs.guarded_output import guard_output
from jobs.scoring.clip_scorer import ClipScorer
from jobs.scoring.tasks import ScoringSetup, Task, TaskOutcome


class ScoreActor:
    """A `ClipScorer` in a process of its own. The pool replaces it if it dies."""

    def __init__(self, setup: ScoringSetup) -> None:
        escape_logs()
        guard_output(is_log=True)
        self._scorer = ClipScorer(setup)

    def load(self) -> str:
        return self._scorer.load()

    def do(self, task: Task) -> TaskOutcome:
        return self._scorer.do(task)


_remote: Any = ray.remote
REMOTE_SCORE_ACTOR = _remote(max_restarts=0, max_task_retries=0)(ScoreActor)
