"""A fake model for the ranks of a group, with real collectives and failures on a chosen rank.

The beginning of a prompt selects the failure:

- `rank N COMMAND` executes COMMAND on rank N alone, after its first step. COMMAND is one of
  `FakeModel`'s, or `differ once PATH`, which makes this rank's latents differ from the others'.
- `slow PATH` takes steps until the leader sees PATH.
"""

import time
from dataclasses import replace
from pathlib import Path

from jobs.worker.setup import without_garbage_collection
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import OnStep
from tests.fakes.model import FakeModel, is_first

with without_garbage_collection():  # each rank imports them in a process of its own
    import torch
    import torch.distributed as dist

MAX_SLOW_STEPS = 1200
FAULT_AFTER_S = 1.2  # the leader has sent a heartbeat with the clip by then


class FakeRankModel(FakeModel):
    """A model whose ranks add up the embeddings at each exchange."""

    torch_device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.sharded_as: ParallelConfig | None = None

    def shard(self, config: ParallelConfig) -> None:
        assert dist.get_world_size() == config.degree
        self.sharded_as = config

    def unshard(self) -> None:
        self.sharded_as = None

    def encode_text(self, request: GenerationRequest, ahead: object = ()) -> TextEmbeddings:
        super().encode_text(request)
        return TextEmbeddings(
            torch.full((1, 2, 3), (request.sampling.seed % 7) / 7),
            torch.ones(1, 2, dtype=torch.bool),
        )

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        words = request.prompt.split()
        total = self._exchange(embeddings)
        if words[0] == "slow":
            for _ in range(MAX_SLOW_STEPS):
                total = self._exchange(embeddings)
                if self._all_see(Path(words[1])):
                    break
                time.sleep(0.05)
        if words[0] == "rank":
            time.sleep(FAULT_AFTER_S)
            is_here = dist.get_rank() == int(words[1])
            request = replace(request, prompt=" ".join(words[2:]) if is_here else "sunrise")
        super().denoise(request, embeddings, on_step)
        latents = self._exchange(embeddings) + total
        is_wrong = request.prompt.startswith("differ") and is_first(Path(words[-1]))
        return latents + 1 if is_wrong else latents

    def _exchange(self, embeddings: TextEmbeddings) -> torch.Tensor:
        total = embeddings.prompt_embeds.clone()
        dist.all_reduce(total)
        return total

    def _all_see(self, path: Path) -> bool:
        """Return True if the leader sees the file, so that all ranks go on together."""
        seen = torch.tensor([float(path.exists())])
        dist.broadcast(seen, src=0)
        return bool(seen)
