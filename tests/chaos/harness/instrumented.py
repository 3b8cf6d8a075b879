"""The real Shapes models, which note which rank they are and each step that they have done.

Decides nothing but what is noted; what is computed is the model's own. See `rank_notes`.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights, verify_weights
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.ltx import LTXModel
from pipelines.families.wan import WanModel
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import OnStep, VideoModel
from tests.chaos.harness.rank_notes import write_note


class Watched(DiffusersModel):
    """A family that notes; the seed of a clip is its number."""

    notes: Path

    def split(self, config: ParallelConfig) -> None:
        super().split(config)
        write_note(self.notes, dist.get_rank())

    def denoise(
        self, request: GenerationRequest, embeddings: TextEmbeddings, on_step: OnStep
    ) -> torch.Tensor:
        rank, clip = dist.get_rank(), request.sampling.seed

        def note_step(step: int) -> None:
            write_note(self.notes, rank, clip, step)
            on_step(step)

        write_note(self.notes, rank, clip)
        return super().denoise(request, embeddings, note_step)


class WatchedWan(Watched, WanModel):
    """See the module."""


class WatchedLTX(Watched, LTXModel):
    """See the module."""


@dataclass(frozen=True)
class LoadWatched:
    """What ranks are told to load; pickled by reference to this module.

    Args:
        notes: the folder that they write to.
    """

    notes: Path

    def __call__(self, config: ModelConfig, weights: ModelWeights, num_threads: int) -> VideoModel:
        verify_weights(config, weights)
        torch.set_num_threads(num_threads)
        family = {"wan": WatchedWan, "ltx": WatchedLTX}[config.family].load(config, weights)
        assert isinstance(family, Watched)
        family.notes = self.notes
        return family
