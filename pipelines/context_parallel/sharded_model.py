"""A model family as one rank of a group: who does what of a clip, and how each rank's failure reaches the leader.

Decides that text is encoded and latents are decoded by the leader, rank 0, alone; that all ranks denoise, by the very
same call on the very same request; that their latents have to agree; and which of several errors is the cause. How the
transformer is split is the family's, how ranks reach each other outside of the process group their processes'.
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
from pipelines.video_model import DeviceMonitor, OnStep, VideoModel

OnFailure = Callable[[Exception], None]
ERRORS_WAIT_S = 10.0  # for what the other ranks ended with; those that waited in a collective know within a second
CONNECTION_TEXTS = (
    "/gloo/",
    "NCCL",
    "onnection closed by peer",
    "onnection reset",
    "rocess group",
)  # gloo's: a path


class ShardableModel(VideoModel, Protocol):
    """A loaded model whose transformer can be split among the ranks of the default process group."""

    @property
    def torch_device(self) -> torch.device: ...

    def shard(self, config: ParallelConfig) -> None:
        """Puts the split on. To be called by all ranks, after they have joined."""
        ...

    def unshard(self) -> None:
        """Takes it off, where it is on. Needs no other rank, and no process group."""
        ...


class Followers(Protocol):
    """The other ranks, as their leader reaches them outside of the process group."""

    def begin(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        """Tells each to denoise its part in this generation of the group; does not wait."""
        ...

    def errors(self, wait_s: float) -> Sequence[Exception]:
        """What those ended with, of what was begun last, that failed. Who has not answered by then is not in it."""
        ...


class RankPart:
    """What one rank, the leader too, does of each clip, and whether it is in a group.

    Args:
        model: the loaded model.
        on_failure: is told of an error that began on this rank and breaks the group.
    """

    def __init__(self, model: ShardableModel, on_failure: OnFailure) -> None:
        self.model = model
        self._on_failure = on_failure
        self._process_group: ProcessGroup | None = None
        self.generation = 0  # that it has joined last

    @property
    def is_whole(self) -> bool:
        """It has a group to denoise with."""
        return self._process_group is not None

    def join(self, rendezvous: Rendezvous) -> None:
        """Forms a group with the other ranks, and splits the model among them.

        Raises:
            RankLostError: another rank did not come, or was lost on the way.
            Exception: the model cannot be split.
        """
        self.leave()
        try:
            self._process_group = ProcessGroup.join(rendezvous, self.model.torch_device)
            self.generation = rendezvous.generation
            with self._leaving_if_it_fails():
                self.model.shard(rendezvous.parallel)
        except (RuntimeError, ValueError) as error:
            if not is_of_connection(error):
                raise
            raise RankLostError(f"the ranks did not come together: {error}") from error

    def leave(self) -> None:
        """Ends its process_group, if it has one, and makes the model whole."""
        self._break()
        self.model.unshard()

    def follow(
        self, generation: int, request: GenerationRequest, *, uses_exact_attention: bool
    ) -> None:
        """Denoises beside the leader, which sends the embeddings and keeps the latents.

        Raises:
            GroupBrokenError: it was told so late that another generation has been formed, which is at something else.
            Exception: as `denoise`.
        """
        if generation != self.generation:
            raise GroupBrokenError(
                f"told to denoise in generation {generation}, in the time of {self.generation}"
            )
        with (
            self._leaving_if_it_fails(),
            self.model.exact_attention() if uses_exact_attention else nullcontext(),
        ):
            self.denoise(request, None, _tell_nobody)

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings | None, on_step: OnStep
    ) -> torch.Tensor:
        """Denoises with all ranks. Whatever it raises, it has left the group before, which frees the others.

        Args:
            embeddings: the leader's; None on the other ranks, to which they are sent.

        Raises:
            GroupBrokenError: there is no group.
            RanksDisagreeError: not all ranks came to the same latents.
        """
        if not self.is_whole:
            raise GroupBrokenError(
                "the ranks have no process group any more; it has to be formed anew"
            )
        with self._leaving_if_it_fails():
            embeddings = broadcast_embeddings(embeddings, self.model.torch_device)
            latents = self.model.denoise(request, embeddings, on_step)
            sums = gather_numbers(checksum(latents), latents.device)
            if len(set(sums)) > 1:
                told = ", ".join(f"rank {rank} {number:016x}" for rank, number in enumerate(sums))
                raise RanksDisagreeError(
                    f"the ranks came to different latents, by their checksums: {told}"
                )
            return latents

    def _break(self) -> None:
        process_group, self._process_group = (
            self._process_group,
            None,
        )  # over, even where it cannot be left
        if process_group is not None:
            process_group.leave()

    def _leaving_if_it_fails(self) -> "_Leaving":
        return _Leaving(self)


class _Leaving(AbstractContextManager[None]):
    """Breaks the group on any error, before the error goes on its way: the others wait for it in a collective."""

    def __init__(self, part: RankPart) -> None:
        self._part = part

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        place: TracebackType | None,
    ) -> None:
        if error is None:
            return
        let_go(error)
        try:
            self._part._break()
        finally:
            if isinstance(error, Exception) and not is_of_connection(error):
                self._part._on_failure(error)


class ShardedModel:
    """The leader's: a `VideoModel` whose `denoise` is done by all ranks of its group.

    Args:
        part: the leader's own.
        followers: the other ranks.
        on_broken: is told why the group has to be formed anew.
    """

    def __init__(self, part: RankPart, followers: Followers, on_broken: OnFailure) -> None:
        self._part = part
        self._model = part.model
        self._followers = followers
        self._on_broken = on_broken
        self._uses_exact_attention = False

    @property
    def device(self) -> DeviceMonitor:
        """The leader's device, which holds the text encoder and the decoder too."""
        return self._model.device

    def encode_text(self, request: GenerationRequest) -> TextEmbeddings:
        return self._model.encode_text(request)

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        """Denoises with all ranks.

        Raises:
            Exception: what went wrong first, on whichever rank.
        """
        if self._part.is_whole:
            self._followers.begin(
                self._part.generation, request, uses_exact_attention=self._uses_exact_attention
            )
        with _Blaming(self):
            return self._part.denoise(request, embeddings, on_step)

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> VideoFrames:
        return self._model.decode(request, latents)

    @contextmanager
    def exact_attention(self) -> Generator[None]:
        """On all ranks."""
        self._uses_exact_attention = True
        try:
            with self._model.exact_attention():
                yield
        finally:
            self._uses_exact_attention = False

    def close(self) -> None:
        self._part.leave()
        self._model.close()

    def find_cause(self, own: Exception) -> Exception:
        """Waits for the other ranks' errors, in bounded time, and says which was the first."""
        if not is_of_connection(own):
            return own
        return first_cause(own, self._followers.errors(ERRORS_WAIT_S))


class _Blaming(AbstractContextManager[None]):
    """Puts the cause in the place of what the leader saw of it."""

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
        cause = self._model.find_cause(error)
        self._model._on_broken(cause)
        if cause is not error:
            raise cause from error


def first_cause(own: Exception, others: Sequence[Exception]) -> Exception:
    """Which error the rest follows from: what a rank itself ran into, before a rank that is gone, before all that is
    seen of these from the other end of a connection.
    """
    roots = [error for error in others if not is_of_connection(error)]
    roots.sort(key=lambda error: isinstance(error, GroupError))
    if roots:
        return roots[0]
    return RankLostError(
        f"the connection among the ranks was lost, and none of them says why: {own}"
    )


def is_of_connection(error: Exception) -> bool:
    """It only says that another rank left, or cannot be reached; what made it do so is for that one to say."""
    if isinstance(error, PipelineError):
        return isinstance(error, GroupBrokenError)
    if "out of memory" in str(error):
        return False
    is_text = isinstance(error, RuntimeError | ValueError) and any(
        text in str(error) for text in CONNECTION_TEXTS
    )
    return is_text or isinstance(error, dist.DistError)


def let_go(error: BaseException | None) -> None:
    """Empties the frames of a traceback that are done with; its text stays.

    They hold latents, and the process group. A gloo group that anything refers to keeps its connections open when it is
    destroyed, and then the ranks that wait for this one wait for the whole time-out (measured, torch 2.13).
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _tell_nobody(_step: int) -> None:
    """The leader's progress is the group's."""
