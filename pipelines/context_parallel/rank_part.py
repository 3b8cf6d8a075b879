"""One rank's part of each clip, and its process group, which it leaves before an error goes on.

All ranks denoise, by the same call on the same request, and their latents must agree. The model
itself shards its transformer.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Protocol

import torch

from pipelines.context_parallel.exchange import broadcast_embeddings, checksum, gather_numbers
from pipelines.context_parallel.process_group import ProcessGroup, Rendezvous
from pipelines.context_parallel.rank_errors import clear_tracebacks, is_connection_error
from pipelines.errors import GroupBrokenError, RankLostError, RanksDisagreeError
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import OnStep, VideoModel

OnFailure = Callable[[Exception], None]


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


def _noop(_step: int) -> None:
    pass
