"""A video model as one rank of a group, and how each rank's failure reaches the leader.

The leader, rank 0, alone encodes text and decodes latents. All ranks denoise, by the same call on
the same request, and their latents must agree. This module decides which of several errors is the
cause. The model itself shards its transformer; `Followers` reaches the other ranks outside of the
process group.
"""

import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Protocol

import torch
import torch.distributed as dist

from pipelines.context_parallel.exchange import broadcast_embeddings, checksum, gather_numbers
from pipelines.context_parallel.process_group import ProcessGroup, Rendezvous
from pipelines.errors import (
    GroupBrokenError,
    GroupError,
    PipelineError,
    RankLostError,
    RanksDisagreeError,
)
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings, VideoFrames
from pipelines.third_party_texts import CONNECTION_LOST, OUT_OF_MEMORY, contains
from pipelines.video_model import DeviceMonitor, OnStep, VideoModel

OnFailure = Callable[[Exception], None]
ERRORS_WAIT_S = 10.0  # ranks that wait in a collective know within a second that another one failed


class ShardableModel(VideoModel, Protocol):
    """A loaded model that can shard its transformer over the ranks of the default process group."""

    @property
    def torch_device(self) -> torch.device: ...

    def shard(self, config: ParallelConfig) -> None:
        """Shard the transformer. All ranks must call it, after they joined the process group."""
        ...

    def unshard(self) -> None:
        """Undo `shard`, if it was called. Needs neither the other ranks nor a process group."""
        ...


class Followers(Protocol):
    """The other ranks, as the leader reaches them outside of the process group."""

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        """Start each follower's part of a clip in this generation of the group; do not wait."""
        ...

    def errors(self, wait_s: float) -> Sequence[Exception]:
        """Return the errors that ended the followers' last clip.

        Args:
            wait_s: the longest wait for them. A rank that has not answered by then is left out.
        """
        ...


class RankPart:
    """The part of each clip that one rank renders, on the leader too, and its process group.

    Args:
        model: the loaded model.
        on_failure: called with each error that began on this rank and broke the group.
    """

    def __init__(self, model: ShardableModel, on_failure: OnFailure) -> None:
        self.model = model
        self._on_failure = on_failure
        self._process_group: ProcessGroup | None = None
        self.generation = 0  # the last one that this rank joined

    @property
    def is_joined(self) -> bool:
        """True while this rank has a process group to denoise with."""
        return self._process_group is not None

    def join(self, rendezvous: Rendezvous) -> None:
        """Form a process group with the other ranks, and shard the model over them.

        Raises:
            RankLostError: another rank did not come to the rendezvous, or was lost there.
            Exception: the model cannot be sharded.
        """
        self.leave()
        try:
            self._process_group = ProcessGroup.join(rendezvous, self.model.torch_device)
            self.generation = rendezvous.generation
            with _LeavingOnFailure(self):
                self.model.shard(rendezvous.parallel)
        except (RuntimeError, ValueError) as error:
            if not is_connection_error(error):
                raise
            raise RankLostError(f"the ranks did not form a process group: {error}") from error

    def leave(self) -> None:
        """Leave the process group, if there is one, and unshard the model."""
        self._leave_process_group()
        self.model.unshard()

    def follow(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        """Denoise beside the leader, which sends the embeddings and keeps the latents.

        Raises:
            GroupBrokenError: the call came late: this rank has joined another generation since.
            Exception: see `denoise`.
        """
        if generation != self.generation:
            raise GroupBrokenError(
                f"expected a clip of generation {self.generation}, got one of {generation}"
            )
        with (
            _LeavingOnFailure(self),
            self.model.exact_attention() if uses_exact_attention else nullcontext(),
        ):
            self.denoise(request, None, _noop)

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings | None, on_step: OnStep
    ) -> torch.Tensor:
        """Denoise with all ranks.

        Before an error leaves this method, the rank leaves its process group. This frees the other
        ranks, which wait for it in a collective.

        Args:
            request: the clip, the same on all ranks.
            embeddings: the leader's text embeddings; None on the other ranks, which receive them.
            on_step: called when a denoise step has been issued.

        Raises:
            GroupBrokenError: this rank has no process group.
            RanksDisagreeError: the ranks came to different latents.
        """
        if not self.is_joined:
            raise GroupBrokenError("the ranks have no process group; it must be formed again")
        with _LeavingOnFailure(self):
            embeddings = broadcast_embeddings(embeddings, self.model.torch_device)
            latents = self.model.denoise(request, embeddings, on_step)
            sums = gather_numbers(checksum(latents), latents.device)
            if len(set(sums)) > 1:
                shown = ", ".join(f"rank {rank} {number:016x}" for rank, number in enumerate(sums))
                raise RanksDisagreeError(
                    f"the ranks came to different latents, by their checksums: {shown}"
                )
            return latents

    def leave_after(self, error: BaseException) -> None:
        """Leave the process group because of an error, and report the error if it began here."""
        clear_tracebacks(error)
        try:
            self._leave_process_group()
        finally:
            if isinstance(error, Exception) and not is_connection_error(error):
                self._on_failure(error)

    def _leave_process_group(self) -> None:
        # Forgotten first: a group that cannot be left must not be used again either.
        process_group, self._process_group = self._process_group, None
        if process_group is not None:
            process_group.leave()


class _LeavingOnFailure(AbstractContextManager[None]):
    """Leaves the process group before an error goes on: the other ranks wait in a collective."""

    def __init__(self, part: RankPart) -> None:
        self._part = part

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        if error is not None:
            self._part.leave_after(error)


class ShardedModel:
    """The leader's `VideoModel`, whose `denoise` runs on all ranks of its group.

    Args:
        part: the leader's own part.
        followers: the other ranks.
        on_broken: called with the error that broke the group, so that it must be formed again.
    """

    def __init__(self, part: RankPart, followers: Followers, on_broken: OnFailure) -> None:
        self._part = part
        self._model = part.model
        self._followers = followers
        self._on_broken = on_broken
        self._uses_exact_attention = False

    @property
    def device(self) -> DeviceMonitor:
        """The leader's device, which needs most memory: it also encodes text and decodes."""
        return self._model.device

    def encode_text(self, request: GenerationRequest) -> TextEmbeddings:
        return self._model.encode_text(request)

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoise with all ranks.

        Raises:
            Exception: the error that came first, on any rank.
        """
        if self._part.is_joined:
            self._followers.begin(
                self._part.generation, request, uses_exact_attention=self._uses_exact_attention
            )
        with _RaisingCause(self):
            return self._part.denoise(request, embeddings, on_step)

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        return self._model.decode(request, latents)

    @contextmanager
    def exact_attention(self) -> Generator[None]:
        """Use exact attention on all ranks while the context is open."""
        self._uses_exact_attention = True
        try:
            with self._model.exact_attention():
                yield
        finally:
            self._uses_exact_attention = False

    def close(self) -> None:
        self._part.leave()
        self._model.close()

    def note_broken(self, own: Exception) -> Exception:
        """Find the cause of a broken group, in bounded time, and report it.

        Args:
            own: the error that the leader met.
        """
        cause = own
        if is_connection_error(own):
            cause = first_cause(own, self._followers.errors(ERRORS_WAIT_S))
        self._on_broken(cause)
        return cause


class _RaisingCause(AbstractContextManager[None]):
    """Raises the cause of a broken group in place of the error that the leader met."""

    def __init__(self, model: ShardedModel) -> None:
        self._model = model

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        if not isinstance(error, Exception) or isinstance(error, GroupBrokenError):
            return
        cause = self._model.note_broken(error)
        if cause is not error:
            raise cause from error


def first_cause(own: Exception, others: Sequence[Exception]) -> Exception:
    """Return the error that the others follow from.

    A rank's own error comes before the loss of a rank, and this before lost connections.

    Args:
        own: the leader's error, a lost connection.
        others: the followers' errors.
    """
    roots = [error for error in others if not is_connection_error(error)]
    roots.sort(key=lambda error: isinstance(error, GroupError))
    if roots:
        return roots[0]
    return RankLostError(
        f"the connection among the ranks was lost, and no rank reports a cause: {own}"
    )


def is_connection_error(error: Exception) -> bool:
    """Return True if the error only shows that another rank left or is unreachable.

    Such an error is never the cause: the other rank's own error is.
    """
    if isinstance(error, PipelineError):
        return isinstance(error, GroupBrokenError)
    if contains(str(error), OUT_OF_MEMORY):
        return False
    is_text = isinstance(error, RuntimeError | ValueError) and contains(str(error), CONNECTION_LOST)
    return is_text or isinstance(error, dist.DistError)


def clear_tracebacks(error: BaseException | None) -> None:
    """Empty the finished frames of an error's tracebacks; their text stays.

    The frames hold latents and the process group. A gloo group that is still referenced keeps its
    connections open when it is destroyed, and then the ranks that wait for this one wait for the
    whole time-out (measured, torch 2.13).
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _noop(_step: int) -> None:
    pass
