"""The answers of Ray's calls, in the order in which they come.

Ray hands over each answer in a thread of its own. `ray.wait` would look at every call that has no
answer yet, and a large farm has thousands. Decides nothing.
"""

from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Literal

from ray.exceptions import RayError

from jobs.schedule.events import WorkerId

Call = Literal["placed", "loaded", "heartbeat", "clip"]


@dataclass(frozen=True, eq=False)
class Answer:
    """One answer of a worker.

    Args:
        pool: number of the worker's pool.
        call: the call that it answers; "placed" is Ray's word that the worker has its devices.
        value: result of the call; None if it failed.
        error: reason for which it failed: the process died, or broke.
    """

    pool: int
    worker: WorkerId
    call: Call
    value: Any
    error: RayError | None


class Answers:
    """The answers that are expected, and those that have come."""

    def __init__(self) -> None:
        self._come: SimpleQueue[Answer] = SimpleQueue()

    def expect(self, pool: int, worker: WorkerId, call: Call, reference: Any) -> None:
        """Let the answer of a call come; `reference` is Ray's reference to it."""

        def note(answered: Future[Any]) -> None:
            error: Any = answered.exception()
            value = None if error is not None else answered.result()
            self._come.put(Answer(pool, worker, call, value, error))

        reference.future().add_done_callback(note)

    def wait(self, timeout_s: float) -> list[Answer]:
        """Wait for an answer, and return all that are there; none if none came in time."""
        found: list[Answer] = []
        try:
            found.append(self._come.get(timeout=timeout_s))
            while True:
                found.append(self._come.get_nowait())
        except Empty:
            return found
