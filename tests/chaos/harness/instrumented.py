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
from pipelines.video_model import LoadedModel, OnStep, VideoModel
from tests.chaos.harness.rank_notes import write_note


class Watched(DiffusersModel):
    """A family that notes; the seed of a clip is its number."""

    notes: Path

    def shard(self, config: ParallelConfig) -> None:
        super().shard(config)
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
class WatchedLoader:
    """A `ModelLoader` of models that write notes, pickled by reference to this module.

    Args:
        notes: the folder that ranks write to.
    """

    notes: Path

    def load_model(
        self, config: ModelConfig, weights: ModelWeights, num_threads: int, /
    ) -> LoadedModel:
        model = self._load(config, weights, num_threads, has_text=True)
        return LoadedModel(model, model.nag_coverage)

    def load_denoiser(
        self, config: ModelConfig, weights: ModelWeights, num_threads: int, /
    ) -> VideoModel:
        return self._load(config, weights, num_threads, has_text=False)

    def _load(
        self, config: ModelConfig, weights: ModelWeights, num_threads: int, *, has_text: bool
    ) -> Watched:
        verify_weights(config, weights)
        torch.set_num_threads(num_threads)
        family = {"wan": WatchedWan, "ltx": WatchedLTX}[config.family]
        model = family.load(config, weights, has_text=has_text)
        assert isinstance(model, Watched)
        model.notes = self.notes
        return model
