"""The Ray actor around a worker: it delegates, and says where it runs."""

import ray

from jobs.records import WorkerIdentity
from jobs.types import ClipOutcome, ClipSpec
from jobs.worker import ClipWorker, WorkerSetup


@ray.remote(max_restarts=0, max_task_retries=0)
class RenderActor:
    """A `ClipWorker` in a process of its own. Replacing it, and trying its clips again, is the dispatcher's."""

    def __init__(self, setup: WorkerSetup) -> None:
        self._worker = ClipWorker(setup, ray.get_runtime_context().get_node_id())

    def load(self) -> WorkerIdentity:
        return self._worker.load()

    def render(self, spec: ClipSpec, attempt: int) -> ClipOutcome:
        return self._worker.render(spec, attempt)
