"""One rank of a group, in a process of its own: its part of the model and its device's thread.

Decides how a rank loads, joins, leaves and reports its state. The leader, rank 0, renders clips
as a single worker does, with a model whose `denoise` the other ranks join. `rank_group` decides
what follows from a failed rank. Knows nothing of Ray.
"""

import os
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from jobs.errors import FailureClass
from jobs.failures import classify
from jobs.group.rank_state import Detached, DeviceHealth, Joined, Loading, RankState, Unusable
from jobs.records.schema import WorkerIdentity
from jobs.types import ClipFailed, ClipOutcome, ClipSpec, WorkerHeartbeat
from jobs.worker.clip_worker import ClipWorker
from jobs.worker.heartbeat import Heartbeat
from jobs.worker.setup import WorkerSetup
from pipelines.errors import GroupBrokenError, RankSilentError
from pipelines.load_progress import LoadProgress
from pipelines.request import GenerationRequest
from pipelines.video_model import VideoModel

if TYPE_CHECKING:
    from pipelines.context_parallel.process_group import Rendezvous
    from pipelines.context_parallel.rank_part import RankPart, ShardableModel
    from pipelines.context_parallel.sharded_model import Followers

T = TypeVar("T")


class Rank(ABC):
    """The part of a rank that leader and followers share."""

    def __init__(self) -> None:
        self._health = DeviceHealth()
        self._attached: RankPart | None = None
        self._broken_by: FailureClass | None = None  # set on the leader alone

    @abstractmethod
    def load(self) -> WorkerIdentity:
        """Load the rank's part of the model in the device's thread."""

    @abstractmethod
    def heartbeat(self) -> WorkerHeartbeat:
        """Return the heartbeat at once, from any thread."""

    @abstractmethod
    def drain(self) -> None:
        """Report in heartbeats from now on that the rank drains. Safe in a signal handler."""

    @abstractmethod
    def _on_device(self, job: Callable[[], T]) -> Future[T]:
        """Run a job in the device's thread, after the jobs that already wait there."""

    def state(self) -> RankState:
        """Return the rank's state at once, from any thread."""
        if self._attached is None:
            return Loading()
        membership = Joined() if self._attached.is_joined else Detached(self._broken_by)
        if self._health.failed_by is not None:
            return Unusable(self._health.failed_by, membership)
        return membership

    def join(self, rendezvous: "Rendezvous") -> None:
        """Wait for the other ranks and form a process group with them."""
        self._broken_by = None
        self._on_device(partial(self._part.join, rendezvous)).result()

    def leave(self, wait_s: float) -> None:
        """Leave the process group. Uploads go on.

        Args:
            wait_s: seconds for the device's thread to end its job.

        Raises:
            RankSilentError: the device's thread is still busy.
        """
        try:
            self._on_device(self._part.leave).result(wait_s)
        except FutureTimeoutError as error:
            raise RankSilentError(
                f"the device's thread is still busy after {wait_s:g} s"
            ) from error

    def _attach(self, model: VideoModel) -> "RankPart":
        from pipelines.context_parallel.rank_part import RankPart

        self._attached = RankPart(cast("ShardableModel", model), self._health.note)
        return self._attached

    @property
    def _part(self) -> "RankPart":
        if self._attached is None:
            raise RuntimeError("the rank has no model; call load first")
        return self._attached


class Follower(Rank):
    """A rank that denoises its part of the leader's clips. It encodes no text and decodes nothing.

    Args:
        setup: the setup of the worker.
        node_id: Ray's name for this machine.
    """

    def __init__(self, setup: WorkerSetup, node_id: str) -> None:
        super().__init__()
        self._setup = setup
        self._node_id = node_id
        self._device = ThreadPoolExecutor(max_workers=1, thread_name_prefix="device")
        self._load_progress = LoadProgress()
        self._heartbeat = Heartbeat(self._load_progress)

    def load(self) -> WorkerIdentity:
        self._on_device(self._load).result()
        device_name = self._part.model.device.name
        return WorkerIdentity(socket.gethostname(), self._node_id, device_name, os.getpid())

    def follow(
        self, generation: int, request: GenerationRequest, uses_exact_attention: bool
    ) -> None:
        """Denoise a clip beside the leader. See `RankPart.follow`."""
        job = partial(
            self._part.follow, generation, request, uses_exact_attention=uses_exact_attention
        )
        self._on_device(job).result()

    def heartbeat(self) -> WorkerHeartbeat:
        return self._heartbeat.read()

    def drain(self) -> None:
        self._heartbeat.drain()

    def _on_device(self, job: Callable[[], T]) -> Future[T]:
        return self._device.submit(job)

    def _load(self) -> None:
        setup = self._setup
        model = setup.loader.load_denoiser(
            setup.model, setup.weights, setup.num_threads, self._load_progress
        )
        self._attach(model)


class Leader(Rank):
    """Rank 0: a `ClipWorker` whose model denoises with all ranks.

    Args:
        setup: the setup of the worker.
        node_id: Ray's name for this machine.
        followers: the other ranks; their processes may be replaced while the leader lives.
    """

    def __init__(self, setup: WorkerSetup, node_id: str, followers: "Followers") -> None:
        super().__init__()
        self._worker = ClipWorker(setup, node_id, self._shard)
        self._followers = followers
        self._renders = threading.Condition()
        self._num_renders = 0

    def load(self) -> WorkerIdentity:
        return self._worker.load()

    def spooled(self) -> frozenset[str]:
        """Return the ids of the encoded clips that wait on this machine."""
        return self._worker.spooled()

    def finish(self, wait_s: float) -> None:
        """Wait until the leader renders and uploads nothing.

        Args:
            wait_s: seconds.

        Raises:
            RankSilentError: clips are still in flight after that time.
        """
        with self._renders:
            if not self._renders.wait_for(lambda: self._num_renders == 0, wait_s):
                raise RankSilentError(
                    f"the leader still has {self._num_renders} clips in flight after {wait_s:g} s"
                )

    def render(self, spec: ClipSpec, attempt: int, uses_exact_attention: bool) -> ClipOutcome:
        """Render and commit one clip. See `ClipWorker.render`."""
        with self._renders:
            self._num_renders += 1
        try:
            outcome = self._worker.render(spec, attempt, uses_exact_attention=uses_exact_attention)
            if isinstance(outcome, ClipFailed) and self._has_originated_here(outcome):
                self._health.note_class(outcome.failure_class)
            return outcome
        finally:
            with self._renders:
                self._num_renders -= 1
                self._renders.notify_all()

    def recall(self, clip_id: str) -> None:
        """Have `render` hand a clip back. See `ClipWorker.recall`."""
        self._worker.recall(clip_id)

    def heartbeat(self) -> WorkerHeartbeat:
        return self._worker.heartbeat()

    def drain(self) -> None:
        self._worker.drain()

    def _on_device(self, job: Callable[[], T]) -> Future[T]:
        return self._worker.on_device(job)

    def _shard(self, model: VideoModel) -> VideoModel:
        from pipelines.context_parallel.sharded_model import ShardedModel

        return ShardedModel(self._attach(model), self._followers, self._note_broken)

    def _has_originated_here(self, failed: ClipFailed) -> bool:
        """Return True if the failure originated in this process, outside of the sharded denoise.

        `RankPart` reports failures inside the sharded denoise. A clip that found no process group
        did not begin; there may be a process group again by now.
        """
        return self._part.is_joined and failed.group_error is not GroupBrokenError

    def _note_broken(self, error: Exception) -> None:
        self._broken_by = classify(error)[0]
