"""The Ray actor around a single worker. It answers while the worker computes."""

import signal
from collections.abc import Callable
from typing import Any

import ray

from jobs.escaping import escape_logs
from jobs.guarded_output import guard_output
from jobs.types import ClipOutcome, ClipSpec, WorkerHeartbeat
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.setup import LoadedWorker, WorkerSetup


class RenderActor:
    """A `ClipWorker` in a process of its own. The schedule replaces it and retries its clips."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._worker = ClipWorker(setup, ray.get_runtime_context().get_node_id())
        prepare_process(self._worker.drain)

    def load(self) -> LoadedWorker:
        return LoadedWorker(
            self._worker.load(), self._worker.spooled(), warning=self._worker.warning
        )

    @ray.method(concurrency_group="control")
    def heartbeat(self) -> WorkerHeartbeat:
        return self._worker.heartbeat()

    @ray.method(concurrency_group="control")
    def recall(self, clip_id: str) -> None:
        self._worker.recall(clip_id)

    def render(self, spec: ClipSpec, attempt: int, uses_exact_attention: bool) -> ClipOutcome:
        return self._worker.render(spec, attempt, uses_exact_attention=uses_exact_attention)


def prepare_process(drain: Callable[[], None]) -> None:
    """Make the process's logs safe to print and dispensable, and let SIGTERM drain it.

    Ray's own handler of SIGTERM would end the process in the middle of a clip. Ray calls an actor's
    constructor in the process's main thread, as `signal.signal` requires.
    """
    escape_logs()
    guard_output(is_log=True)
    signal.signal(signal.SIGTERM, lambda _number, _frame: drain())


_remote: Any = ray.remote  # its types do not know concurrency groups
REMOTE_RENDER_ACTOR = _remote(
    max_restarts=0, max_task_retries=0, concurrency_groups={"control": 1}
)(RenderActor)
