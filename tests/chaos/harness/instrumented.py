"""The real Shapes models, instrumented: each process notes its rank and each step that it has done.

What is computed stays the model's own. See `rank_notes` for the notes.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from pipelines.catalog.model_config import ModelConfig
from pipelines.catalog.model_folder import ModelWeights
from pipelines.families.diffusers_model import DiffusersModel
from pipelines.families.ltx import LTXModel
from pipelines.families.wan import WanModel
from pipelines.families.worker_weights import verify_weights
from pipelines.load_progress import LoadProgress
from pipelines.parallel_config import ParallelConfig
from pipelines.request import GenerationRequest, TextEmbeddings
from pipelines.video_model import LoadedModel, OnStep, VideoModel
from tests.chaos.harness.rank_notes import write_note


class InstrumentedModel(DiffusersModel):
    """A model that writes notes; the seed of a clip is its number in them."""

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


class InstrumentedWan(InstrumentedModel, WanModel):
    """The instrumented model of the Wan family."""


class InstrumentedLTX(InstrumentedModel, LTXModel):
    """The instrumented model of the LTX family."""


@dataclass(frozen=True)
class InstrumentedLoader:
    """A `ModelLoader` of instrumented models, pickled by reference to this module.

    Args:
        notes: folder to which the ranks write.
    """

    notes: Path

    def load_model(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> LoadedModel:
        model = self._load(config, weights, num_threads, progress, has_text=True)
        return LoadedModel(model, model.nag_coverage)

    def load_denoiser(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        /,
    ) -> VideoModel:
        return self._load(config, weights, num_threads, progress, has_text=False)

    def _load(
        self,
        config: ModelConfig,
        weights: ModelWeights,
        num_threads: int,
        progress: LoadProgress,
        *,
        has_text: bool,
    ) -> InstrumentedModel:
        verify_weights(config, weights, progress)
        torch.set_num_threads(num_threads)
        family = {"wan": InstrumentedWan, "ltx": InstrumentedLTX}[config.family]
        model = family.load(config, weights, progress, has_text=has_text)
        assert isinstance(model, InstrumentedModel)
        model.notes = self.notes
        return model
