"""One rank of a group, in a process of its own: its part of the model, and the thread that owns its device.

Decides what a rank does when it is told to, in bounded time where somebody waits for it. The leader, rank 0, renders
clips as any worker does, with a family whose `denoise` the other ranks join. What becomes of a group whose rank fails
is `group`'s. Knows nothing of Ray.
"""

import os
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from jobs.errors import FailureClass
from jobs.failures import classify
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipFailed, ClipOutcome, ClipSpec, WorkerHeartbeat
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.heartbeat import Heartbeat
from jobs.worker.setup import WorkerSetup
from pipelines.errors import GroupBrokenError, RankSilentError
from pipelines.request import GenerationRequest
from pipelines.video_model import VideoModel

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import Rendezvous
    from pipelines.context_parallel.sharded_model import Followers, RankPart, ShardableModel

T = TypeVar("T")
UNSOUND: frozenset[FailureClass] = frozenset(
    {"memory", "worker"}
)  # such a process is not to be trusted again


class Follower:
    """A rank that denoises its part of what the leader renders. It holds no text encoder, and decodes nothing."""

    def __init__(self, setup: WorkerSetup, node_id: str) -> None:
        self._setup = setup
        self._node_id = node_id
        self._device = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._heartbeat = Heartbeat()
        self._soundness = Soundness()
        self._part: RankPart | None = None

    def load(self) -> WorkerIdentity:
        """Loads its part of the model in the device's thread."""
        self._device.submit(self._load).result()
        return self.identity

    @property
    def identity(self) -> WorkerIdentity:
        return WorkerIdentity(
            socket.gethostname(), self._node_id, self._loaded.model.device.name, os.getpid()
        )

    def join(self, rendezvous: "Rendezvous") -> None:
        """Forms a group with the others; waits for them."""
        self._device.submit(self._loaded.join, rendezvous).result()

    def leave(self, wait_s: float) -> None:
        """Ends its part of a group, once its thread comes out of what it is at.

        Raises:
            RankSilentError: it does not come out in time.
        """
        wait_for(self._device.submit(self._loaded.leave), wait_s)

    def follow(
        self, generation: int, request: GenerationRequest, uses_exact_attention: bool
    ) -> None:
        self._device.submit(
            self._loaded.follow, generation, request, uses_exact_attention=uses_exact_attention
        ).result()

    def is_sound(self) -> bool:
        """Nothing has happened in this process after which it should not be used again. Answers at once."""
        return self._part is not None and self._soundness.is_sound

    def heartbeat(self) -> WorkerHeartbeat:
        return self._heartbeat.heartbeat()

    def drain(self) -> None:
        """It was told to end: `heartbeat` says so from now on. Safe in a signal's handler."""
        self._heartbeat.drain()

    def _load(self) -> None:
        from pipelines.context_parallel.sharded_model import RankPart

        setup = self._setup
        model = setup.loader.load_denoiser(setup.model, setup.weights, setup.num_threads)
        self._part = RankPart(cast("ShardableModel", model), self._soundness.note)

    @property
    def _loaded(self) -> "RankPart":
        if self._part is None:
            raise RuntimeError("the rank has no model; call load first")
        return self._part


class Leader:
    """Rank 0: a `ClipWorker`, whose family denoises with all ranks.

    Args:
        followers: how it reaches them; their processes may change while it lives.
    """

    def __init__(self, setup: WorkerSetup, node_id: str, followers: "Followers") -> None:
        self._worker = ClipWorker(setup, node_id, self._shard)
        self._followers = followers
        self._part: RankPart | None = None
        self._soundness = Soundness()
        self._broken_by: FailureClass | None = None
        self._renders = threading.Condition()
        self._num_renders = 0

    def load(self) -> WorkerIdentity:
        return self._worker.load()

    def spooled(self) -> frozenset[str]:
        return self._worker.spooled()

    def join(self, rendezvous: "Rendezvous") -> None:
        """See `Follower.join`."""
        self._broken_by = None
        self._worker.on_device(partial(self._loaded.join, rendezvous)).result()

    def finish(self, wait_s: float) -> None:
        """Waits until all that it renders and uploads has come to its end.

        Raises:
            RankSilentError: that takes too long.
        """
        with self._renders:
            if not self._renders.wait_for(lambda: self._num_renders == 0, wait_s):
                raise RankSilentError(
                    f"{self._num_renders} clips are still in the leader's hands after {wait_s:g} s"
                )

    def leave(self, wait_s: float) -> None:
        """See `Follower.leave`; what is being uploaded goes on."""
        wait_for(self._worker.on_device(self._loaded.leave), wait_s)

    def render(self, spec: ClipSpec, attempt: int, uses_exact_attention: bool) -> ClipOutcome:
        """See `ClipWorker.render`."""
        with self._renders:
            self._num_renders += 1
        try:
            outcome = self._worker.render(spec, attempt, uses_exact_attention=uses_exact_attention)
            if (
                isinstance(outcome, ClipFailed)
                and outcome.failure_class in UNSOUND
                and self._is_own(outcome)
            ):
                self._soundness.is_sound = False
            return outcome
        finally:
            with self._renders:
                self._num_renders -= 1
                self._renders.notify_all()

    def broken_by(self) -> FailureClass | None:
        """Which class of failure the group has broken of; None of one that is whole."""
        return None if self._loaded.is_joined else self._broken_by or "code"

    def is_sound(self) -> bool:
        """See `Follower.is_sound`."""
        return self._part is not None and self._soundness.is_sound

    def heartbeat(self) -> WorkerHeartbeat:
        return self._worker.heartbeat()

    def drain(self) -> None:
        self._worker.drain()

    def _shard(self, model: VideoModel) -> VideoModel:
        from pipelines.context_parallel.sharded_model import RankPart, ShardedModel

        self._part = RankPart(cast("ShardableModel", model), self._soundness.note)
        return ShardedModel(self._part, self._followers, self._note_broken)

    def _is_own(self, failed: ClipFailed) -> bool:
        """What breaks no group began in this process, outside of the shared part; the rest `RankPart` tells of. A clip
        that found no group has not begun, and there may be one by now.
        """
        return self._loaded.is_joined and failed.group_error is not GroupBrokenError

    def _note_broken(self, error: Exception) -> None:
        self._broken_by = classify(error)[0]

    @property
    def _loaded(self) -> "RankPart":
        if self._part is None:
            raise RuntimeError("the leader has no model; call load first")
        return self._part


class Soundness:
    """Whether a process may be used again after what happened in it."""

    def __init__(self) -> None:
        self.is_sound = True

    def note(self, error: Exception) -> None:
        """An error began here: its memory or its device may fail with every other clip. Of latents that were not the
        others' the same holds, and the class.
        """
        if classify(error)[0] in UNSOUND:
            self.is_sound = False


def wait_for(future: Future[T], wait_s: float) -> T:
    try:
        return future.result(wait_s)
    except FutureTimeoutError as error:
        raise RankSilentError(
            f"the device's thread does not come out of what it is at within {wait_s:g} s"
        ) from error
