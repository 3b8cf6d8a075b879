"""The model of a group of ranks, as the leader sees it, and how each rank's failure reaches it.

The leader, rank 0, alone encodes text and decodes latents; all ranks denoise (`rank_part`).
`Followers` reaches the other ranks outside of the process group.
"""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Protocol

import torch

from pipelines.context_parallel.rank_errors import first_cause, is_connection_error
from pipelines.context_parallel.rank_part import OnFailure, RankPart
from pipelines.errors import GroupBrokenError
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import DeviceMonitor, OnStep, PendingFrames

ERRORS_WAIT_S = 10.0  # ranks that wait in a collective know within a second that another one failed


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

    def encode_text(
        self, request: GenerationRequest, ahead: Sequence[GenerationRequest] = ()
    ) -> TextEmbeddings:
        return self._model.encode_text(request, ahead)

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

    def decode(self, request: GenerationRequest, latents: torch.Tensor) -> PendingFrames:
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
